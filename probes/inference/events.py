"""What a load says over its pipe: one JSON object a line, typed at both ends. Written here by the child, read here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from bench.measure import procfs
from bench.measure.probe import Failed
from bench.model import Code
from probes.common.pipe import Done, Pipe, R, Record, Refused, of
from probes.common.sustained import SearchEnd

MARK_SECONDS = 0.03  # between the line that opens a stage and its first step: the parent samples its watchers then


@dataclass(frozen=True, slots=True)
class DeviceFacts(Record):
    """What the load runs on; ``index`` in the driver's order, ``stand_in`` where it takes a GPU's place."""

    kind: Literal["cuda", "cpu"]
    index: int
    shape: str
    name: str = ""
    torch: str | None = None
    stand_in: str | None = None
    devices: int | None = None
    foreign_processes: int | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Labels that every figure of a device carries: which device, which shape, and what it stands in for."""
        labels = {"device": str(self.index) if self.kind == "cuda" else self.kind, "shape": self.shape}
        return {**labels, "stand_in": self.stand_in} if self.stand_in else labels


@dataclass(frozen=True, slots=True)
class NodeFacts(Record):
    """By the driver's number the name of each card, empty where it is not ours; none on a CPU."""

    kind: Literal["cuda", "cpu"]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pinned(Record):
    """A worker is up and bound to so many CPUs beside its card; None where those are not known."""

    device: str
    cpus: int | None = None


@dataclass(frozen=True, slots=True)
class Lost(Record):
    """A worker that gives no answer, or none to this step."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Compiled(Record):
    """Whether a decode step's small parts run compiled, ``why`` not; seconds of a step either way, and to compile."""

    used: bool
    why: str = ""
    plain_seconds: float | None = None
    compiled_seconds: float | None = None
    compiler_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Checked(Record):
    """So many products of each kind: ``mismatches`` values of the random ones were not those of the first of them, and
    ``wrong`` ones of the others not the known answer. ``digest``: of the first's bits. ``device``: of several cards.
    """

    products: int
    mismatches: int
    wrong: int | None = None
    digest: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Warmup(Record):
    windows: int = 0
    steady: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch(Record):
    """A stretch of work: wall seconds, those in which the device computed, joules, and how the load was held up.

    The ratios are shares of wall time: in which the load waited for a CPU, any task of the node did, and which the
    hypervisor gave to others. None where it is not known.
    """

    seconds: float
    busy_seconds: float
    joules: float | None = None
    delay_ratio: float | None = None
    pressure_ratio: float | None = None
    steal_ratio: float | None = None

    @property
    def busy_ratio(self) -> float:
        return min(1.0, self.busy_seconds / self.wall)

    @property
    def wall(self) -> float:
        """Its seconds. Raises Failed where there are none."""
        if self.seconds <= 0:
            raise Failed(Code.TOOL_OUTPUT, f"a window of the load lasted {self.seconds} s")
        return self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Stretch):
    """One repeat of one stage: ``steps`` steps, and what each of them does (``tokens``, ``flops``, ``bytes``).

    Among several cards: ``phase`` is alone or together, ``device`` the card, ``peer`` the other end of a copy.
    """

    stage: str
    round: int
    steps: int
    step_seconds: tuple[float, ...] = ()
    batch: int | None = None
    tokens: int | None = None
    flops: float | None = None
    bytes: float | None = None
    phase: str = ""
    device: str = ""
    peer: str | None = None
    transport: str | None = None  # of a copy between cards: nvlink, pcie, or host, where they cannot reach each other
    shape: str | None = None
    context: int | None = None  # tokens in the cache

    def rate(self, work: str) -> float:
        """Tokens, flops or bytes a second. Raises Failed for a window without them."""
        return self.amount(work) * self.steps / self.wall

    def amount(self, work: str) -> float:
        """What one step does. Raises Failed where it does none of it."""
        amount: float | None = getattr(self, work)
        if amount is None:
            raise Failed(Code.TOOL_OUTPUT, f"window of the load has no number {work!r}")
        return amount


@dataclass(frozen=True, slots=True)
class ServedRequest(Record):
    """One request of an open-loop window. Seconds after its start; ``tokens`` when each token was there."""

    scheduled: float
    output: int
    tokens: tuple[float, ...]
    lag: float | None = None
    failed: bool = False

    @property
    def finished(self) -> bool:
        return len(self.tokens) >= self.output

    @property
    def first_token(self) -> float | None:
        """Seconds from the *scheduled* arrival to the first token."""
        return self.tokens[0] - self.scheduled if self.tokens else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between its tokens."""
        return [b - a for a, b in pairwise(self.tokens)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve(Stretch):
    """The open-loop window: requests a second that were offered, its planned seconds, and the limits (seconds)."""

    rate: float
    window: float
    first_token_limit: float
    inter_token_limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTrial(Stretch):
    """One window of the search, at one rate."""

    rate: float


PIPE = Pipe("the inference load", {
    "begin": None, "end": None, "device": DeviceFacts, "node": NodeFacts, "card": Pinned, "lost": Lost,
    "compiled": Compiled, "checked": Checked, "warmup": Warmup, "window": Window, "request": ServedRequest,
    "serve": Serve, "trial": SearchTrial, "search": SearchEnd, "refused": Refused, "done": Done,
}, "event")  # fmt: skip
read, say = PIPE.read, PIPE.say

# --- the parent's side


def first(found: Iterable[Record], kind: type[R]) -> R | None:
    """The first event of a kind, or None."""
    return next(iter(of(found, kind)), None)


def device_of(found: Iterable[Record]) -> DeviceFacts:
    """What the load said that it runs on. Raises Failed where it never did."""
    if device := first(found, DeviceFacts):
        return device
    raise Failed(Code.TOOL_OUTPUT, "the load never said what it runs on")


def unfinished(found: Iterable[Record], quick: bool) -> list[str]:
    """The stages of which a load that was ended early has no figures, in their order."""
    ends = {"check": Checked, "serve": Serve, **({} if quick else {"search": SearchEnd})}
    seen = {window.stage for window in of(found, Window)} | {name for name, kind in ends.items() if of(found, kind)}
    return [name for name in ("matmul", "copy", "prefill", "decode", *ends) if name not in seen]


# --- the child's side


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Marks at both ends of a stage."""
    with PIPE.stage(name):
        time.sleep(MARK_SECONDS)
        yield


def measured(work: Callable[[], dict[str, Any]], energy: Callable[[], float | None] = lambda: None) -> dict[str, Any]:
    """``work``'s fields, and those of a `Stretch` around it: how it was held up, and the joules that it took."""
    began, before, joules = time.perf_counter(), _waited(), energy()
    fields = work()
    used, after = energy(), _waited()
    wall = max(time.perf_counter() - began, 1e-9)
    for name, now in after.items():
        was = before[name]
        fields[name] = None if now is None or was is None else max(0.0, now - was) / wall
    return {**fields, "joules": None if joules is None or used is None else used - joules}


def _waited() -> dict[str, float | None]:
    """Seconds until now, by the ratio that they make; None where the kernel does not say.

    Run-queue delay of all threads of this process; time in which some task of the node waited for a CPU; time that the
    hypervisor gave to others, mean of the CPUs.
    """
    steal = procfs.cpu_ticks().steal / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)
    delay, pressure = procfs.own_run_queue_seconds(), procfs.stalled_seconds("cpu")
    return {"delay_ratio": delay, "pressure_ratio": pressure, "steal_ratio": steal}
