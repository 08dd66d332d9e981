"""What the ranks of an all-reduce measured, and who held the others up. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.judge.statistics import median, median_interval
from bench.measure.jsonl import objects, understood
from bench.measure.probe import Failed, TimedOut
from bench.model import Code, Measurement

#: A rank is a straggler when the others wait for it longer than this share of an iteration, in the median.
WAIT_SHARE = 0.2
#: A port is slow when it carries less than this share of what the median link does.
SLOW_SHARE = 0.67
_WHO = "the all-reduce"


@dataclass(frozen=True, slots=True)
class Ranks:
    """``seconds[size][rank]``: each iteration; ``links[source, destination]``: bytes per second, alone."""

    names: tuple[str, ...]
    backend: str
    seconds: Mapping[int, Sequence[Sequence[float]]]
    links: Mapping[tuple[int, int], float]


def parse(text: str) -> Ranks:
    """The program's output. Raises Failed or TimedOut with the reason that it gave."""
    said = objects(text, _WHO, "kind")
    error = next((one for one in said if one["kind"] == "error"), None)
    if error is not None:
        raise _failure(str(error.get("error")))
    with understood(_WHO):
        names = tuple(str(name) for one in said if one["kind"] == "ranks" for name in one["names"])
        times = {int(one["rank"]): one for one in said if one["kind"] == "times"}
    if not names or set(times) != set(range(len(names))):
        raise Failed(Code.TOOL_OUTPUT, f"the all-reduce told the times of {len(times)} of {len(names) or 'its'} ranks")
    return _ranks(names, [times[rank] for rank in range(len(names))])


def _failure(error: str) -> Failed | TimedOut:
    late = "timed out" in error.lower() or "timeout" in error.lower()
    text = " ".join(error.split())[:300]
    if late:
        return TimedOut(Code.PEER_TIMED_OUT, text)
    return Failed.told(text) if ": " in text else Failed(Code.COLLECTIVE_FAILED, text)


def _ranks(names: tuple[str, ...], times: Sequence[Mapping[str, Any]]) -> Ranks:
    with understood(_WHO):
        sizes = [int(size) for size in times[0]["sizes"]]
        seconds = {size: [[float(s) for s in one["sizes"][str(size)]] for one in times] for size in sizes}
        links = {
            (int(source), rank): float(rate) for rank, one in enumerate(times) for source, rate in one["links"].items()
        }
    if not seconds or any(len({len(rank) for rank in ranks}) != 1 or not ranks[0] for ranks in seconds.values()):
        raise Failed(Code.TOOL_OUTPUT, "the ranks told of different numbers of iterations")
    return Ranks(names, str(times[0].get("backend")), seconds, links)


def bus_bandwidths(ranks: Ranks, size: int) -> list[float]:
    """Bytes per second of each iteration: size / time * 2 (n - 1) / n.

    By nccl-tests (doc/PERFORMANCE.md), so that it can be compared with a link's speed whatever the number of ranks.
    The time is the mean of the ranks' own, as there (``--average 1``).
    """
    n = len(ranks.names)
    return [size / fmean(iteration) * 2 * (n - 1) / n for iteration in zip(*ranks.seconds[size], strict=True)]


def waits(ranks: Ranks, size: int) -> list[float]:
    """For each rank the seconds (median of the iterations) that it waited for the last one to arrive.

    The last to arrive waits for nobody, so its own time is the shortest: the straggler is the rank with the least.
    """
    by_rank: list[list[float]] = [[] for _ in ranks.names]
    for iteration in zip(*ranks.seconds[size], strict=True):
        for rank, seconds in enumerate(iteration):
            by_rank[rank].append(seconds - min(iteration))
    return [median(values) for values in by_rank]


def late_rank(ranks: Ranks, size: int) -> int | None:
    """The rank that the others wait for, or None."""
    waited = waits(ranks, size)
    iteration = median([max(one) for one in zip(*ranks.seconds[size], strict=True)])
    others = sorted(waited)[1:]
    return waited.index(min(waited)) if others and median(others) > WAIT_SHARE * iteration else None


def port_shares(ranks: Ranks) -> dict[tuple[int, str], float]:
    """(rank, ``send`` or ``receive``): what its links carry (median) over what all links do (median)."""
    if not ranks.links:
        return {}
    usual = median(list(ranks.links.values()))
    found = {}
    for rank in range(len(ranks.names)):
        ways = {"send": 0, "receive": 1}
        for way, end in ways.items():
            own = [rate for link, rate in ranks.links.items() if link[end] == rank]
            if own:
                found[rank, way] = median(own) / usual
    return found


def slow_port(ranks: Ranks) -> tuple[int, str] | None:
    """The slowest port, if it carries much less than the others; None for two ranks, where it cannot be told whose."""
    shares = port_shares(ranks)
    if len(ranks.names) < 3 or not shares:
        return None
    worst = min(shares, key=lambda key: shares[key])
    return worst if shares[worst] < SLOW_SHARE else None


def measurements(ranks: Ranks, labels: Mapping[str, str]) -> list[Measurement]:
    found = []
    for size in sorted(ranks.seconds):
        named = {**labels, "backend": ranks.backend, "size_bytes": str(size), "ranks": str(len(ranks.names))}
        found.append(_of("collective_bus_bytes_per_second", bus_bandwidths(ranks, size), named))
        for rank, name in enumerate(ranks.names):
            found.append(_of("collective_iteration_seconds", ranks.seconds[size][rank], {**named, **_rank(rank, name)}))
    largest = max(ranks.seconds)
    for rank, wait in enumerate(waits(ranks, largest)):
        found.append(_of("collective_wait_seconds", [wait], {**labels, **_rank(rank, ranks.names[rank])}))
    for (source, destination), rate in sorted(ranks.links.items()):
        ends = {"source": _end(source, ranks), "destination": _end(destination, ranks)}
        found.append(_of("collective_link_bytes_per_second", [rate], {**labels, **ends}))
    for (rank, way), share in port_shares(ranks).items():
        found.append(
            _of("collective_port_ratio", [share], {**labels, **_rank(rank, ranks.names[rank]), "direction": way})
        )
    return [*found, *_straggler(ranks, largest, labels)]


def _straggler(ranks: Ranks, size: int, labels: Mapping[str, str]) -> list[Measurement]:
    """1 for each rank that holds the others up, with why."""
    late, slow = late_rank(ranks, size), slow_port(ranks)
    named = [(late, "late")] if late is not None else []
    named += [(slow[0], f"slow_{slow[1]}")] if slow is not None else []
    return [
        _of("collective_straggler_info", [1.0], {**labels, **_rank(rank, ranks.names[rank]), "cause": cause})
        for rank, cause in named
    ]


def stragglers(ranks: Ranks) -> list[str]:
    """For people, one sentence each."""
    size, found = max(ranks.seconds), []
    late, slow = late_rank(ranks, size), slow_port(ranks)
    if late is not None:
        found.append(
            f"{Code.STRAGGLER}: rank {_end(late, ranks)} arrives late; it waits least, and all others wait for it"
        )
    if slow is not None:
        share = port_shares(ranks)[slow]
        way = "sends" if slow[1] == "send" else "receives"
        found.append(
            f"{Code.STRAGGLER}: rank {_end(slow[0], ranks)} {way} at {share:.0%} of what the median link carries"
        )
    return found


def _rank(rank: int, name: str) -> dict[str, str]:
    return {"rank": str(rank), "host": name}


def _end(rank: int, ranks: Ranks) -> str:
    return f"{rank} ({ranks.names[rank]})"


def _of(metric: str, values: Sequence[float], labels: Mapping[str, str]) -> Measurement:
    value, (low, high) = median_interval(values)
    return Measurement(
        metric=metric, value=value, interval=(max(0.0, low), high), samples=len(values), labels=dict(labels),
        repeats=tuple(values),
    )  # fmt: skip
