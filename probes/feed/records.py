"""What the feed's child program answers: one JSON object a line, each a record of one of these kinds.

The child writes them with `line`, and `probes.feed.parse` reads them. Fields that have a default are absent from
recordings of an earlier version, or where the machine does not have them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from probes.feed.rates import Steady, steady


def line(record: Any) -> str:
    """The JSON line of a record, without what is None. Raises ValueError for a number that JSON does not have."""
    return json.dumps({name: value for name, value in asdict(record).items() if value is not None}, allow_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The accelerator and the data, before the first arm. ``demand`` in samples a second, None if it must show it."""

    accelerator: str  # emulated, cpu, cuda
    name: str
    batch: int
    sample_bytes: int
    data_bytes: int
    data_seconds: float
    direct: bool
    workers: int
    block_bytes: int
    decode: str
    cores: int
    demand: float | None = None
    count: int = 1
    unwritten_bytes: int = 0
    device: str | None = None
    files: int = 0
    apart: bool = False
    bucket: bool = False
    memory: str | None = None  # of a GPU's blocks: pinned, registered, pageable
    loader: str | None = None
    loader_workers: int | None = None
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One turn of one arm.

    ``curve`` is cumulative samples at every ``grid_seconds``; ``seconds`` is how long the readers ran; bytes and CPU
    times are over those. The other two curves are (seconds, units a second). A turn of ``mend`` says how it read.
    """

    arm: str
    turn: int
    grid_seconds: float
    warm_seconds: float
    shortest_seconds: float
    curve: list[float]
    seconds: float
    busy_ratio: float | None = None
    busy_error_ratio: float = 0.0
    sample_seconds: float | None = None
    waits: int = 0
    wait_p50_seconds: float = 0.0
    wait_p99_seconds: float = 0.0
    read_bytes: int = 0
    own_device_bytes: int = 0
    device_bytes: int | None = None
    network_bytes: int = 0
    resident_ratio: float | None = None
    run_queue_wait_ratio: float | None = None
    reader_cpu_seconds: float = 0.0
    others_cpu_ratio: float = 1.0
    device_curve: tuple[tuple[float, float], ...] = ()
    pressure_curve: tuple[tuple[float, float], ...] = ()
    workers: int = 0
    block_bytes: int = 0
    buffered: bool = False
    kind: Literal["arm"] = "arm"

    def steady(self, demand: float) -> Steady | None:
        """The flat end of the curve; see `probes.feed.rates.steady`."""
        return steady(self.curve, self.grid_seconds, self.warm_seconds, self.shortest_seconds, demand)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternReady:
    """What a pattern other than the feed runs with."""

    accelerator: str
    pattern: str = ""
    cores: int = 0
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Bytes moved whole in so many seconds. ``device_bytes`` came from the device; None for a write."""

    turn: int
    bytes: int
    seconds: float
    device_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoad(Moved):
    """Model weights read cold: by our reader (``yardstick``) or ``safetensors``, ``to`` the ``host`` or ``cuda``."""

    reader: str
    to: str
    kind: Literal["load"] = "load"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRead(Moved):
    """Evicted key-value blocks read back, with the seconds that each took, while the host is idle or decodes."""

    model: str
    state: str
    block_bytes: int
    latencies: list[float]
    kind: Literal["kv"] = "kv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Moved):
    """A checkpoint written with fsync (``write``), or read back cold (``restore``)."""

    direction: str
    kind: Literal["checkpoint"] = "checkpoint"


@dataclass(frozen=True, slots=True)
class DirectoryCheck:
    """Whether a directory lies in memory (the name of its file system or device), or cannot be used."""

    memory: str | None = None
    error: str | None = None
    kind: Literal["check"] = "check"


@dataclass(frozen=True, slots=True)
class LoadError:
    """Why the child stopped: a machine word and a sentence."""

    word: str
    text: str
    kind: Literal["error"] = "error"


@dataclass(frozen=True, slots=True)
class End:
    """Everything was measured."""

    seconds: float = 0.0
    kind: Literal["end"] = "end"
