"""The 200 ms budget as one answer: how likely is a response late, when network and model are put together? Pure.

Each part is known by a few of its quantiles, each with an interval. Between two of them the estimate takes an
exponential tail; the bounds take every value as low, and as high, as the quantiles' intervals allow. The parts are
taken as independent of each other; where one load slows them all, late answers are more frequent than said here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from bench.judge.statistics import Interval, quantile, quantile_interval
from bench.model import Measurement, Outcome, ProbeResult, Run

#: The gap between two speakers in human conversation is about 200 ms (Stivers et al., PNAS 106, 2009).
BUDGET_SECONDS = 0.2
#: Under this name, as of a probe, a run holds the whole answer that was put together.
RESPONSE = "response"
#: Speech synthesis can begin with the first words, not with the first token: about five tokens.
FIRST_WORDS_TOKENS = 5
_CELLS = 120  # in all of a part
_SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_FINE = (*(n / 20 for n in range(1, 20)), 0.96, 0.97, 0.98, 0.985, 0.99, 0.992, 0.994, 0.996, 0.998, 0.999, 0.9995)
Atom = tuple[float, float]  # seconds, probability


class Part(NamedTuple):
    """One part of a response: (share, low, value, high) of each known quantile, by share; the last one is the largest.

    Seconds. ``low`` and ``high`` are the quantile's interval.
    """

    name: str
    quantiles: tuple[tuple[float, float, float, float], ...]
    samples: int
    stand_in: str | None = None
    invalid: str | None = None

    def scaled(self, factor: float, name: str) -> Part:
        """The part ``factor`` times over, its slow moments all at once (comonotone): an upper bound of its spread."""
        times = tuple((share, *(factor * seconds for seconds in rest)) for share, *rest in self.quantiles)
        return Part(name, times, self.samples, self.stand_in, self.invalid)  # type: ignore[arg-type]


class Composed(NamedTuple):
    """``over``: the probability of exceeding the budget, with its bounds; ``shares``: of the mean, by part; seconds."""

    over: float
    bounds: tuple[float, float]
    p50: float
    p99: float
    shares: Mapping[str, float]
    left: float


def part(name: str, measurements: Sequence[Measurement]) -> Part | None:
    """A part from the measurements of one metric that differ in ``statistic`` alone; None without any quantile."""
    stated = [(_SHARES.get(m.labels.get("statistic", "")), m) for m in measurements]
    known = sorted((share, m.interval[0], m.value, m.interval[1]) for share, m in stated if share)
    if not known:
        return None
    if known[-1][0] < 1.0:
        known.append((1.0, *known[-1][1:]))
    first = measurements[0]
    invalid = next((m.invalid for m in measurements if m.invalid), None)
    return Part(name, tuple(known), max(m.samples for m in measurements), first.stand_in, invalid)


def part_of_samples(
    name: str, values: Sequence[float], stand_in: str | None = None, invalid: str | None = None
) -> Part:
    """A part from all of its values: it knows its tail better than a few quantiles do. Raises ValueError for none."""
    shares = [share for share in _FINE if (1.0 - share) * len(values) >= 1.0]
    around = [(share, quantile_interval(values, share)) for share in shares]
    known = [(share, low, quantile(values, share), high) for share, (low, high) in around]
    largest = max(values)
    return Part(name, (*known, (1.0, largest, largest, largest)), len(values), stand_in, invalid)


def compose(parts: Sequence[Part], budget: float = BUDGET_SECONDS) -> Composed:
    """Put independent parts together. Raises ValueError for none."""
    if not parts:
        raise ValueError("a response has at least one part")
    curves = {one.name: _curve(one) for one in parts}
    total = _sum(list(curves.values()))
    low, high = (_over(_sum([_stairs(one, low=low) for one in parts]), budget) for low in (True, False))
    over = _over(total, budget)
    means = {name: sum(seconds * weight for seconds, weight in curve) for name, curve in curves.items()}
    whole = sum(means.values()) or 1.0
    p99 = _quantile(total, 0.99)
    return Composed(
        over=over,
        bounds=(min(low, over), max(high, over)),
        p50=_quantile(total, 0.5),
        p99=p99,
        shares={name: mean / whole for name, mean in means.items()},
        left=budget - p99,
    )


def _curve(one: Part) -> list[Atom]:
    """Cells between two known quantiles: their values evenly spaced, their weights those of an exponential tail."""
    cells = max(2, _CELLS // len(one.quantiles))
    atoms = [(one.quantiles[0][2], one.quantiles[0][0])]
    for (a, _, from_value, _), (b, _, to_value, _) in pairwise(one.quantiles):
        least = 0.5 / max(one.samples, 1)  # of n samples the largest stands for the last half of 1/n
        above, beyond = 1.0 - a, max(1.0 - b, min(least, (1.0 - a) / 2))
        edges = [above * (beyond / above) ** (n / cells) for n in range(cells)] + [1.0 - b]
        for n, (more, less) in enumerate(pairwise(edges)):
            atoms.append((from_value + (n + 0.5) * (to_value - from_value) / cells, more - less))
    return atoms


def _stairs(one: Part, low: bool) -> list[Atom]:
    """As small, or as large, as the quantiles and their intervals allow: the lower, or the upper, of each two."""
    shares, lows, _, highs = zip(*one.quantiles, strict=True)
    values = (0.0, *lows[:-1]) if low else highs
    return [(value, b - a) for value, (a, b) in zip(values, pairwise((0.0, *shares)), strict=True) if b > a]


def _sum(parts: Sequence[list[Atom]]) -> list[Atom]:
    """The distribution of the sum, sorted; thinned out, value upwards, where it would grow beyond need."""
    total = sorted(parts[0])
    for atoms in parts[1:]:
        total = _thinned(sorted((x + y, p * q) for x, p in total for y, q in atoms))
    return total


def _thinned(atoms: Sequence[Atom], most: int = 600) -> list[Atom]:
    """Neighbours merged at their mean; the tail, one atom in a thousand of the weight, is kept as it is."""
    if len(atoms) <= most:
        return list(atoms)
    kept: list[Atom] = []
    seconds = weight = done = 0.0
    for x, p in atoms:
        seconds, weight = seconds + x * p, weight + p
        limit = max(1e-7, min(1.0 - done, 1.0) / (most / 8))
        if weight >= limit:
            kept.append((seconds / weight, weight))
            done, seconds, weight = done + weight, 0.0, 0.0
    if weight > 0.0:
        kept.append((seconds / weight, weight))
    return kept


def _over(atoms: Sequence[Atom], budget: float) -> float:
    return min(1.0, max(0.0, sum(weight for seconds, weight in atoms if seconds > budget * (1 + 1e-12))))


def _quantile(atoms: Sequence[Atom], share: float) -> float:
    sums = list(accumulate(weight for _, weight in atoms))
    return atoms[min(bisect_left(sums, share * sums[-1] - 1e-12), len(atoms) - 1)][0]


# --- from a run


def composed(run: Run) -> Run:
    """The run with the whole answer put together from its network and its model, where both were measured."""
    if any(result.probe == RESPONSE for result in run.results):
        return run
    found = response(run)
    extra = [ProbeResult(probe=RESPONSE, outcome=Outcome.OK, measurements=tuple(found))] if found else []
    return run.model_copy(update={"results": (*run.results, *extra)})


def response(run: Run, budget: float = BUDGET_SECONDS) -> list[Measurement]:
    """The composed answer for a run's first token and first words; empty when network or model were not measured.

    Network: ``network_round_trip_seconds``, loaded where there is such a figure, of the peer with the worst p99. Model:
    ``inference_first_token_seconds`` of a real server (``endpoint``), else of the stage ``serve``, and
    ``inference_inter_token_seconds`` of the same stage. A server that is named by its address on another node has that
    network in it already: then the sum is an upper bound.
    """
    network = _network(run)
    model = _staged(run, "inference_first_token_seconds", "first_token")
    if network is None or model is None:
        return []
    found = _answer("first_token", [network, model], budget)
    gap = _staged(run, "inference_inter_token_seconds", "further_tokens")
    if gap is not None:
        words = gap.scaled(FIRST_WORDS_TOKENS - 1, "further_tokens")
        found += _answer("first_words", [network, model, words], budget)
    return found


def _network(run: Run) -> Part | None:
    metric = "network_round_trip_seconds"
    found = run.find(metric, state="loaded") or run.find(metric, state="idle")
    by_peer: dict[str, list[Measurement]] = {}
    for measurement in found:
        by_peer.setdefault(measurement.labels.get("peer", ""), []).append(measurement)
    parts = [one for group in by_peer.values() if (one := _all_of(run, group) or part("network", group)) is not None]
    return max(parts, key=lambda one: max(q[2] for q in one.quantiles if q[0] <= 0.99), default=None)


def _all_of(run: Run, group: Sequence[Measurement]) -> Part | None:
    """From the stored time line, when it holds every single round trip and not the largest of each stretch."""
    first = group[0]
    named = {key: value for key, value in first.labels.items() if key in ("peer", "state")}
    for series in chain.from_iterable(result.series for result in run.results):
        same = series.metric == first.metric and named.items() <= series.labels.items()
        if same and len(series.values) >= first.samples:
            return part_of_samples("network", series.values, first.stand_in, first.invalid)
    return None


def _staged(run: Run, metric: str, name: str) -> Part | None:
    """Of a real server, else of the stage ``serve`` (real arrivals), else of the first that was measured."""
    found = run.find(metric)
    stages = [m.labels.get("stage", "") for m in found]
    wanted = next((stage for stage in ("endpoint", "serve", *stages) if stage in stages), None)
    return part(name, [m for m in found if m.labels.get("stage", "") == wanted])


def _answer(until: str, parts: Sequence[Part], budget: float) -> list[Measurement]:
    whole = compose(parts, budget)
    stand_in = next((one.stand_in for one in parts if one.stand_in), None)
    labels = {"until": until} | ({"stand_in": stand_in} if stand_in else {})
    invalid = "; ".join(dict.fromkeys(one.invalid for one in parts if one.invalid)) or None
    samples = min(one.samples for one in parts)

    def made(metric: str, value: float, interval: Interval | None = None, **more: str) -> Measurement:
        at, around = {**labels, **more}, interval or (value, value)
        return Measurement(metric=metric, value=value, interval=around, samples=samples, labels=at, invalid=invalid)

    return [
        made("response_over_budget_ratio", whole.over, whole.bounds, budget_seconds=f"{budget:g}"),
        made("response_seconds", whole.p50, statistic="p50"),
        made("response_seconds", whole.p99, statistic="p99"),
        made("response_left_seconds", whole.left),
        *(made("response_part_ratio", share, part=name) for name, share in whole.shares.items()),
    ]
