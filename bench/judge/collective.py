"""What the ranks of an all-reduce timed, and what follows from it: bandwidth, the last to arrive, the slow port. Pure.

One program measures it for a node's own probe and for a fleet (``probes/collective/load/rank.py``), and both are judged
here. The probe has every iteration of every rank, and each link alone (`Ranks`); a fleet has the means of each node's
ranks (`NodeTimes`), because it may have thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from bench.judge.fleet.model import Collective, State
from bench.judge.statistics import median
from bench.model import Measurement

#: A rank is a straggler when the others wait for it longer than this share of an iteration, in the median.
WAIT_SHARE = 0.2
#: A port is slow when it carries less than this share of what the median link does.
SLOW_SHARE = 0.67
_LATE_SHARE = 0.1  # of a fleet's all-reduce: less is the scatter of a sound one
_MOST_RANKS, _MOST_KINDS = 1024, 16  # of one node; of sizes, and of transports


def bus_bandwidth(size: float, seconds: float, ranks: int) -> float:
    """Bytes per second: size / time * 2 (n - 1) / n.

    By nccl-tests (doc/PERFORMANCE.md), so that it can be compared with a link's speed whatever the number of ranks.
    """
    return size / seconds * 2 * (ranks - 1) / ranks


# --- every iteration of every rank


@dataclass(frozen=True, slots=True)
class Ranks:
    """``seconds[size][rank]``: each iteration; ``links[source, destination]``: bytes per second, alone.

    ``arrivals[rank]``: of sums of one number before the iterations, where those begin together (on GPUs).
    """

    names: tuple[str, ...]
    backend: str
    seconds: Mapping[int, Sequence[Sequence[float]]]
    links: Mapping[tuple[int, int], float]
    arrivals: Sequence[Sequence[float]] = ()


def bus_bandwidths(ranks: Ranks, size: int) -> list[float]:
    """Return that of each iteration. Its time is the mean of the ranks' own, as in nccl-tests (``--average 1``)."""
    return [bus_bandwidth(size, fmean(one), len(ranks.names)) for one in zip(*ranks.seconds[size], strict=True)]


def waits(ranks: Ranks, size: int) -> list[float]:
    """For each rank the seconds (median of the iterations) that it waited for the last one to arrive.

    The last to arrive waits for nobody, so its own time is the shortest: the straggler is the rank with the least.
    """
    seconds = ranks.arrivals or ranks.seconds[size]
    least = [min(iteration) for iteration in zip(*seconds, strict=True)]
    return [median([own - first for own, first in zip(one, least, strict=True)]) for one in seconds]


def late_rank(ranks: Ranks, size: int) -> int | None:
    """The rank that the others wait for, or None."""
    waited = waits(ranks, size)
    iteration = median([max(one) for one in zip(*ranks.seconds[size], strict=True)])
    others = sorted(waited)[1:]
    return waited.index(min(waited)) if others and median(others) > WAIT_SHARE * iteration else None


def port_shares(ranks: Ranks) -> dict[tuple[int, str], float]:
    """(rank, ``send`` or ``receive``): what its links carry (median) over what all links do (median)."""
    ports = {
        (rank, way): [rate for link, rate in ranks.links.items() if link[end] == rank]
        for rank in range(len(ranks.names))
        for end, way in enumerate(("send", "receive"))
    }
    return {port: median(own) / median(list(ranks.links.values())) for port, own in ports.items() if own}


def slow_port(ranks: Ranks) -> tuple[int, str] | None:
    """The slowest port, if it carries much less than the others; None for two ranks, where it cannot be told whose."""
    shares = port_shares(ranks)
    if len(ranks.names) < 3 or not shares:
        return None
    worst = min(shares, key=lambda key: shares[key])
    return worst if shares[worst] < SLOW_SHARE else None


# --- the means of a node's ranks

_Figure = Annotated[FiniteFloat, Field(ge=0, lt=1e15)]
_Count = Annotated[int, Field(ge=0, lt=10**15)]


class _Told(BaseModel):
    """A part of what a node answers."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", defer_build=True)


class _Means(_Told):
    """Of all iterations: an all-reduce, which takes some time, and the wait for the last rank before it."""

    seconds: Annotated[_Figure, Field(ge=1e-9)]
    wait_seconds: _Figure


class SumTimes(_Told):
    """An all-reduce of one size: the mean of a rank's iterations."""

    message_bytes: _Count
    seconds: Annotated[_Figure, Field(ge=1e-9)]


class Carried(_Told):
    """How many connections of this node's ranks a transport carried, ``within`` the node or ``between`` nodes.

    ``fast``: it is the hardware that is made for it; None where nobody can tell, or nothing faster is there.
    """

    scope: Literal["within", "between"]
    transport: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
    connections: Annotated[_Count, Field(ge=1)]
    fast: bool | None = None


class RankTimes(_Means):
    """One rank's; ``local`` is its number on its node. An older one has neither ``sums`` (by size) nor ``carried``."""

    local: int = 0
    sums: Annotated[list[SumTimes], Field(max_length=_MOST_KINDS)] = []
    carried: Annotated[list[Carried], Field(max_length=_MOST_KINDS)] = []


class NodeTimes(_Means):
    """What a node of a fleet answers: its slowest rank's all-reduce, and its least wait. ``world``: all ranks.

    An older one has neither ``world`` nor ``ranks``: each node had one rank.
    """

    node: int = 0
    world: _Count | None = None
    backend: str = ""
    message_bytes: _Count
    iterations: int = 0
    ranks: Annotated[list[RankTimes], Field(max_length=_MOST_RANKS)] = []
    stand_in: str | None = None

    @property
    def carried(self) -> list[Carried]:
        return [one for rank in self.ranks for one in rank.carried]


def fleet_collective(
    nodes: tuple[str, ...], found: Mapping[str, NodeTimes], rows: Sequence[tuple[str, State, str | None]]
) -> Collective:
    """The collective of nodes that all answered. The slowest rank's time counts, and n is all ranks."""
    ranks: dict[str, Sequence[_Means]] = {host: node.ranks or [node] for host, node in found.items()}
    n, sizes = sum(map(len, ranks.values())), {node.message_bytes for node in found.values()}
    if len(sizes) > 1 or any(node.world not in (None, n) for node in found.values()):
        reason = f"bad_result: the nodes' lines are not of one collective of {n} ranks"
        return Collective(state=State.BAD_RESULT, reason=reason, ranks=nodes, rows=tuple(rows))
    seconds = max(rank.seconds for own in ranks.values() for rank in own)
    last, late = _last(found, ranks, seconds)
    return Collective(
        state=State.PASS,
        ranks=nodes,
        world=n,
        message_bytes=min(sizes),
        bus_bytes_per_second=bus_bandwidth(min(sizes), seconds, n),
        straggler=last,
        straggler_late_seconds=late,
        rows=tuple(rows),
    )


def of_backend(found: Iterable[NodeTimes]) -> dict[str, str]:
    """The labels of all their figures. What is not NCCL on every node stands in for it."""
    on_gpus = all(node.backend == "nccl" for node in found)
    return {"backend": "nccl"} if on_gpus else {"backend": "gloo", "stand_in": "cpu"}


def figures(found: Sequence[NodeTimes]) -> Iterator[Measurement]:
    """A fleet's all-reduce as the figures that each of its nodes has of it: the slowest rank's time counts."""
    ranks = [rank for node in found for rank in node.ranks]
    told = {"ranks": str(len(ranks)), **of_backend(found)}
    for size in sorted({one.message_bytes for rank in ranks for one in rank.sums}):
        seconds = [one.seconds for rank in ranks for one in rank.sums if one.message_bytes == size]
        if len(seconds) == len(ranks):
            low, high = (bus_bandwidth(size, of(seconds), len(ranks)) for of in (max, min))
            yield Measurement(
                metric="collective_bus_bytes_per_second", value=low, interval=(low, high),
                samples=max(1, min(node.iterations for node in found)), labels={**told, "size_bytes": str(size)},
            )  # fmt: skip


def transports(carried: Sequence[Carried], labels: Mapping[str, str]) -> Iterator[Measurement]:
    """What carried a node's traffic within it and between nodes, and the share that the hardware made for that did.

    Of a transport that is unknown the share may be either.
    """
    for scope in ("within", "between"):
        of_scope = [one for one in carried if one.scope == scope]
        if not of_scope:
            continue
        whole = sum(one.connections for one in of_scope)
        known = sum(one.connections for one in of_scope if one.fast is not None)
        fast = sum(one.connections for one in of_scope if one.fast)
        named = {**labels, "scope": scope, "transport": ",".join(sorted({one.transport for one in of_scope}))}
        info, ratio = (f"collective_{name}" for name in ("transport_info", "fast_transport_ratio"))
        yield Measurement(metric=info, value=1.0, interval=(1.0, 1.0), samples=whole, labels=named)
        if known:
            interval = (fast / whole, (fast + whole - known) / whole)
            yield Measurement(metric=ratio, value=fast / known, interval=interval, samples=whole, labels=named)


def _last(
    found: Mapping[str, NodeTimes], ranks: Mapping[str, Sequence[_Means]], seconds: float
) -> tuple[str | None, float]:
    """Who arrives last waits least: its wait is compared with the median rank's. Where all ranks of a node are late it
    is the node, else its GPU; nobody when the last is hardly later than the others.
    """
    waited = {(host, number): rank.wait_seconds for host, own in ranks.items() for number, rank in enumerate(own)}
    usual, scatter = median(list(waited.values())), _LATE_SHARE * seconds
    host, number = min(waited, key=lambda rank: waited[rank])
    late = usual - waited[host, number]
    if late <= scatter:
        return None, late
    whole = all(usual - rank.wait_seconds > scatter for rank in ranks[host])
    word = "GPU" if found[host].backend == "nccl" else "rank"
    return host if whole else f"{host} {word} {number}", late
