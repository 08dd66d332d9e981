"""The all-reduce program's lines, and the measurements and sentences that they make. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from bench.judge import collective
from bench.judge.collective import Ranks, bus_bandwidths, late_rank, port_shares, slow_port, waits
from bench.measure.jsonl import records
from bench.measure.probe import Failed, TimedOut
from bench.model import Code, Measurement
from probes.collective import nccl
from probes.common.metrics import of_repeats

_Seconds = Annotated[float, Field(ge=1e-9, lt=1e15)]
_Rate = Annotated[float, Field(gt=0, lt=1e18)]


@dataclass(frozen=True, slots=True)
class RankNames:
    """All ranks have been started; their hosts by number."""

    names: list[str]


@dataclass(frozen=True, slots=True)
class RankIterations:
    """What one rank timed. ``sizes[bytes]``: seconds of each iteration; ``links[source]``: bytes per second.

    ``waits``: seconds of the sum of one number before each iteration, where there was one.
    """

    rank: int
    backend: str
    sizes: dict[Annotated[int, Field(gt=0, lt=1 << 50)], Annotated[list[_Seconds], Field(min_length=1)]]
    links: dict[int, _Rate]
    waits: list[_Seconds] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RankLog:
    """NCCL's own log of one rank of this node."""

    rank: int
    log: str


@dataclass(frozen=True, slots=True)
class RanksFailed:
    """Why there are no times: ``word: sentence``."""

    error: str


_KINDS: Mapping[str, type[object]] = {
    "ranks": RankNames,
    "times": RankIterations,
    "nccl": RankLog,
    "error": RanksFailed,
}


def parse(text: str) -> Ranks:
    """The program's output. Raises Failed or TimedOut with the reason that it gave."""
    said = records(text, "the all-reduce", _KINDS)
    if failed := next((one for one in said if isinstance(one, RanksFailed)), None):
        raise _failure(failed.error)
    names = tuple(name for one in said if isinstance(one, RankNames) for name in one.names)
    times = {one.rank: one for one in said if isinstance(one, RankIterations)}
    if not names or set(times) != set(range(len(names))):
        raise Failed(Code.TOOL_OUTPUT, f"the all-reduce told the times of {len(times)} of {len(names) or 'its'} ranks")
    by_rank = [times[rank] for rank in range(len(names))]
    if not times[0].sizes or len({tuple((size, len(s)) for size, s in one.sizes.items()) for one in by_rank}) != 1:
        raise Failed(Code.TOOL_OUTPUT, "the ranks told of different numbers of iterations")
    seconds = {size: [one.sizes[size] for one in by_rank] for size in times[0].sizes}
    links = {(source, one.rank): rate for one in by_rank for source, rate in one.links.items()}
    if any(source not in times for source, _ in links):
        raise Failed(Code.TOOL_OUTPUT, "the all-reduce told of a link from a rank that is none")
    if len({len(one.waits) for one in by_rank}) != 1:
        raise Failed(Code.TOOL_OUTPUT, "the ranks told of different numbers of waits")
    arrivals = [one.waits for one in by_rank] if by_rank[0].waits else ()
    return Ranks(names, times[0].backend, seconds, links, arrivals)


def _failure(error: str) -> Failed | TimedOut:
    if "timed out" in error.lower() or "timeout" in error.lower():
        return TimedOut(Code.PEER_TIMED_OUT, error[:300])
    return Failed.told(error[:300]) if ": " in error else Failed(Code.COLLECTIVE_FAILED, error[:300])


def measurements(ranks: Ranks, labels: Mapping[str, str]) -> Iterator[Measurement]:
    of_rank = [{"rank": str(rank), "host": name} for rank, name in enumerate(ranks.names)]
    for size in sorted(ranks.seconds):
        named = {**labels, "backend": ranks.backend, "size_bytes": str(size), "ranks": str(len(ranks.names))}
        yield of_repeats("collective_bus_bytes_per_second", bus_bandwidths(ranks, size), named)
        for own, seconds in zip(of_rank, ranks.seconds[size], strict=True):
            yield of_repeats("collective_iteration_seconds", seconds, {**named, **own})
    for own, wait in zip(of_rank, waits(ranks, max(ranks.seconds)), strict=True):
        yield of_repeats("collective_wait_seconds", [wait], {**labels, **own})
    for (source, destination), rate in sorted(ranks.links.items()):
        ends = {"source": _end(source, ranks), "destination": _end(destination, ranks)}
        yield of_repeats("collective_link_bytes_per_second", [rate], {**labels, **ends})
    for (rank, way), share in port_shares(ranks).items():
        yield of_repeats("collective_port_ratio", [share], {**labels, **of_rank[rank], "direction": way})
    for rank, cause, _ in stragglers(ranks):
        yield of_repeats("collective_straggler_info", [1.0], {**labels, **of_rank[rank], "cause": cause})


def transports(text: str, ranks: Ranks, labels: Mapping[str, str]) -> Iterator[Measurement]:
    """What carried the traffic of this node's ranks. gloo has TCP for all."""
    log = nccl.read(one.log for one in records(text, "the all-reduce", _KINDS) if isinstance(one, RankLog))
    if ranks.backend != "nccl":
        pairs = [(0, other) for other in range(1, len(ranks.names))]
        log = nccl.Log(tuple(nccl.Connection(*pair, "sockets") for pair in pairs), nvlink=False)
    known = tuple(one for one in log.connections if max(one.source, one.destination) < len(ranks.names))
    carried = nccl.carried(replace(log, connections=known), lambda a, b: ranks.names[a] == ranks.names[b])
    yield from collective.transports(carried, {**labels, "backend": ranks.backend})


def stragglers(ranks: Ranks) -> list[tuple[int, str, str]]:
    """Each rank that holds the others up: its number, the cause, and a sentence for people."""
    found = []
    if (late := late_rank(ranks, max(ranks.seconds))) is not None:
        found.append((late, "late", "arrives late; it waits least, and all others wait for it"))
    if (slow := slow_port(ranks)) is not None:
        rank, way = slow
        text = f"{way}s at {port_shares(ranks)[slow]:.0%} of what the median link carries"
        found.append((rank, f"slow_{way}", text))
    return [(rank, cause, f"{Code.STRAGGLER}: rank {_end(rank, ranks)} {text}") for rank, cause, text in found]


def _end(rank: int, ranks: Ranks) -> str:
    return f"{rank} ({ranks.names[rank]})"
