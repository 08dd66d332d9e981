"""What the feed's child program is told: the data, the accelerator, and which arms run for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from bench.model import Effort

LOADERS = ("torch", "webdataset", "safetensors", "parquet")
PATTERNS = ("model-load", "kv-cache", "checkpoint")


@dataclass(frozen=True, slots=True)
class Row:
    """One arm of the schedule. Seconds left out at its begin, needed after that, and allowed until it is flat.

    A ``mend`` row tries another way to read, and only if storage turned out to be what lacks.
    """

    arm: str
    turn: int
    warm: float
    shortest: float
    longest: float
    workers: int | None = None
    block_bytes: int | None = None
    buffered: bool = False


class Spec(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """What to measure. Bytes and seconds; ``demand`` in samples a second, None for a real accelerator.

    ``images``: what a sample costs a real accelerator (`probes.feed.workloads.Workload`).
    ``bucket`` (bytes a second, burst bytes) reads from an exact software rate in place of files: calibration.
    ``files`` are existing files to read in place of our own; ``buffered`` leaves O_DIRECT out, as where there is none.
    """

    folder: str
    accelerator: str  # emulated, cpu, cuda, auto
    sample_bytes: int
    sample_sd_bytes: int = 0
    samples_per_file: int
    batch: int
    count: int = 1
    images: int = 1
    demand: float | None
    data_bytes: int
    layout_seconds: float
    schedule: tuple[Row, ...]
    deadline_seconds: float
    workers: int = 16
    readers: int = 4
    decode: str = "none"
    loader: str | None = None
    pattern: str = "batch"
    sequential: bool = False
    seed: int = 7
    bucket: tuple[float, float] | None = None
    files: tuple[str, ...] = ()
    buffered: bool = False


#: (warm, shortest, longest) of each arm at quick, standard and thorough effort. Warm-up covers the fill of the
#: read-ahead and short burst credits; an arm that is not flat by then goes on to ``longest``.
_SECONDS: Mapping[str, tuple[tuple[float, float, float], ...]] = {
    "resident": ((0.3, 0.5, 0.5), (0.5, 2.0, 2.0), (0.5, 7.0, 7.0)),
    "transfer": ((0.2, 0.3, 0.3), (0.3, 0.9, 0.9), (1.0, 3.0, 3.0)),
    "preprocess": ((0.2, 0.5, 0.5), (0.4, 1.2, 1.2), (1.0, 6.0, 6.0)),
    "fetch": ((0.4, 0.8, 1.6), (1.0, 2.5, 6.0), (2.0, 14.0, 40.0)),
    "storage": ((0.6, 1.5, 2.5), (1.5, 5.0, 12.0), (2.0, 20.0, 60.0)),
    "yardstick": ((1.0, 2.0, 4.0), (1.0, 5.0, 10.0), (1.0, 15.0, 30.0)),
    "mend": ((0.3, 0.6, 0.6), (0.3, 1.5, 1.5), (0.3, 5.0, 5.0)),
}
#: Each arm so often, one after the other, because devices drift: of two turns nobody can tell how far, at 95 %.
_TURNS = 3
#: Other ways to read, the most promising first; the search ends with the effort's time. (workers, block, buffered)
_WAYS: tuple[tuple[int | None, int | None, bool], ...] = (
    (64, None, False),
    (None, 4 << 20, False),
    (None, 256 << 10, False),
    (None, None, True),
)


def schedule(effort: Effort, real: bool, readers: int, loader: bool) -> tuple[Row, ...]:
    """The rows of the child's schedule, the other ways to read last.

    A real accelerator's own rate is measured first (once its clock is up), between, and last; an emulated one's is
    exact. With a loader of other people's our own reader is measured beside it. ``readers``: how many the workload's
    publishers use.
    """
    seconds = {arm: lengths[list(Effort).index(effort)] for arm, lengths in _SECONDS.items()}
    if loader:  # worker processes start slowly and each first fetches whole batches: more is left out and looked at
        warm, shortest, longest = seconds["storage"]
        seconds["storage"] = warm * 2, shortest * 1.5, longest * 2
    rows: list[Row] = []
    for turn in range(1, _TURNS + 1):
        arms = [Row(arm, turn, *seconds[arm]) for arm in ("transfer", "preprocess", "fetch", "storage")]
        warm, shortest, longest = seconds["resident"]
        alone = [Row("resident", turn, warm * (2 if turn == 1 else 1), shortest, longest)] if real else []
        rows += [*arms, *alone] if turn == _TURNS else [*alone, *arms]
    if loader:
        rows.insert(-1 if real else len(rows), Row("yardstick", 1, *seconds["yardstick"]))
    ways = ((readers, None, False), *_WAYS)
    return (*rows, *(Row("mend", turn, *seconds["mend"], *way) for turn, way in enumerate(ways, 1)))
