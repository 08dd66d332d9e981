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

from bench.judge.pooling import SHARES
from bench.judge.statistics import Interval, quantile, quantile_interval
from bench.model import Finding, Measurement, Run, Status
from bench.units import human

#: The gap between two speakers in human conversation is about 200 ms (Stivers et al., PNAS 106, 2009).
BUDGET_SECONDS = 0.2
RESPONSE = "response"
FIRST_TOKEN, ROUND_TRIP = "inference_first_token_seconds", "network_round_trip_seconds"
#: What network and server of a server on another host take of its time to the first token.
PART = "response_part_seconds"
#: Speech synthesis can begin with the first words, not with the first token: about five tokens.
FIRST_WORDS_TOKENS = 5
_CELLS, _MOST_ATOMS = 120, 600  # in all of a part, and of a sum
_SHARES = {**SHARES, "max": 1.0}
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
        times = [(share, factor * low, factor * value, factor * high) for share, low, value, high in self.quantiles]
        return self._replace(name=name, quantiles=tuple(times))


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


def compose(parts: Sequence[Part]) -> Composed:
    """Put independent parts together. Raises ValueError for none."""
    if not parts:
        raise ValueError("a response has at least one part")
    curves = {one.name: _curve(one) for one in parts}
    total = _sum(list(curves.values()))
    low, high = (_over(_sum([_stairs(one, low=low) for one in parts])) for low in (True, False))
    over = _over(total)
    means = {name: sum(seconds * weight for seconds, weight in curve) for name, curve in curves.items()}
    whole = sum(means.values()) or 1.0
    p99 = _quantile(total, 0.99)
    return Composed(
        over=over,
        bounds=(min(low, over), max(high, over)),
        p50=_quantile(total, 0.5),
        p99=p99,
        shares={name: mean / whole for name, mean in means.items()},
        left=BUDGET_SECONDS - p99,
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


def _thinned(atoms: Sequence[Atom]) -> list[Atom]:
    """Neighbours merged at their mean; the tail, one atom in a thousand of the weight, is kept as it is."""
    if len(atoms) <= _MOST_ATOMS:
        return list(atoms)
    kept: list[Atom] = []
    seconds = weight = done = 0.0
    for x, p in atoms:
        seconds, weight = seconds + x * p, weight + p
        limit = max(1e-7, min(1.0 - done, 1.0) / (_MOST_ATOMS / 8))
        if weight >= limit:
            kept.append((seconds / weight, weight))
            done, seconds, weight = done + weight, 0.0, 0.0
    if weight > 0.0:
        kept.append((seconds / weight, weight))
    return kept


def _over(atoms: Sequence[Atom]) -> float:
    return min(1.0, max(0.0, sum(weight for seconds, weight in atoms if seconds > BUDGET_SECONDS * (1 + 1e-12))))


def _quantile(atoms: Sequence[Atom], share: float) -> float:
    sums = list(accumulate(weight for _, weight in atoms))
    return atoms[min(bisect_left(sums, share * sums[-1] - 1e-12), len(atoms) - 1)][0]


# --- from a run


def response(run: Run) -> list[Measurement]:
    """The composed answer for a run's first token and first words; empty when network or model were not measured.

    Network: ``network_round_trip_seconds``, loaded where there is such a figure, of the peer with the worst p99. Model:
    ``inference_first_token_seconds`` of a real server (``endpoint``), else of the stage ``serve``, and
    ``inference_inter_token_seconds`` of the same stage. The times of a server on another host have its network in
    them: nothing is added, and they are told apart (`_apart`).
    """
    model = _staged(run, FIRST_TOKEN, "first_token")
    split = _apart(run)
    network = None if split else _network(run)
    if model is None or not (split or network):
        return []
    parts = [network, model] if network else [model]
    found = _answer("first_token", parts, split)
    gap = _staged(run, "inference_inter_token_seconds", "further_tokens")
    if gap is not None:
        words = gap.scaled(FIRST_WORDS_TOKENS - 1, "further_tokens")
        found += _answer("first_words", [*parts, words], split)
    return [*found, *split]


def _apart(run: Run) -> list[Measurement]:
    """Network and server of a server on another host: p50 and p99 of each. None for one on this node.

    The network's round trip is that of the paced echo, where a peer is the server's host, else the time to connect (of
    TLS half of it: TCP and TLS 1.3 take a round trip each). The server has what is left of the time to the first token
    on an open connection, and the network the rest of the whole, waiting for a connection included.
    """
    info = next((m for m in run.find("endpoint_info") if m.labels.get("place") in ("peer", "elsewhere")), None)
    whole = part("whole", run.find(FIRST_TOKEN, stage="endpoint"))
    connected = part("server", run.find("endpoint_connected_first_token_seconds"))
    if info is None or whole is None or connected is None:
        return []
    echo = part("network", run.find(ROUND_TRIP, state="idle", peer=info.labels.get("peer", "")))
    secure = info.labels.get("endpoint", "").startswith("https:")
    connect = part("network", run.find("endpoint_connect_seconds"))
    way = echo or (connect and connect.scaled(0.5 if secure else 1.0, "network"))
    if way is None:
        return []
    by = {"endpoint": info.labels.get("endpoint", ""), "measured_by": "echo" if echo else "connect"}
    made = []
    for statistic in ("p50", "p99"):
        usual, slow = _at(way, "p50"), _at(way, statistic)
        low, value, high = _at(connected, statistic)
        server = max(0.0, value - usual[1])
        between = (min(server, max(0.0, low - slow[2])), max(server, high - usual[0]))
        rest = max(0.0, _at(whole, statistic)[1] - server)
        for name, seconds, around in (("network", rest, (rest, rest)), ("server", server, between)):
            labels = {"until": "first_token", "part": name, "statistic": statistic, **by}
            made.append(Measurement(metric=PART, value=seconds, interval=around, samples=whole.samples, labels=labels,
                                    invalid=whole.invalid or way.invalid))  # fmt: skip
    return made


def _at(one: Part, statistic: str) -> tuple[float, float, float]:
    """Low, value and high of a quantile; of the next lower one that is known, where that one is not."""
    known = [(low, value, high) for share, low, value, high in one.quantiles if share <= _SHARES[statistic]]
    return known[-1] if known else one.quantiles[0][1:]


def told_apart(run: Run, finding: Finding) -> Finding:
    """The finding of a server's first token that is not in time, with which of both breaks the limit: it, or the
    network to it.
    """
    statistic, most = finding.labels.get("statistic", ""), finding.limit.max
    split = {m.labels["part"]: m for m in run.find(PART, statistic=statistic) if "measured_by" in m.labels}
    judged = {m.value for m in run.find(FIRST_TOKEN, stage="endpoint", statistic=statistic)}
    open_ = finding.metric == FIRST_TOKEN and finding.status in (Status.FAIL, Status.UNDECIDED)
    if not open_ or most is None or len(split) < 2 or split["server"].invalid or finding.observed not in judged:
        return finding
    network, server = split["network"], split["server"]
    if server.interval[1] <= most:
        which, remedy = "the network to the server breaks the limit, not the server", _NETWORK_REMEDY
    elif server.interval[0] > most:
        which, remedy = "the server breaks the limit, not the network to it", finding.remedy
    else:
        which, remedy = "whether the server breaks the limit or the network to it is not clear", finding.remedy
    takes = (
        f"the network takes {human(network.value, PART)} {way_words(network)}, the server {human(server.value, PART)}"
    )
    reason = f"{finding.reason}; {which}: {takes}" if finding.reason else f"({which}: {takes})"
    return finding.model_copy(update={"reason": reason[:4000], "remedy": remedy})


def way_words(network: Measurement) -> str:
    """How the network's part is known, for a person."""
    echoed = network.labels.get("measured_by") == "echo"
    return "(by the paced echo there)" if echoed else "(by the time to connect; no --peer is on its host)"


_NETWORK_REMEDY = (
    "Mend the path to the server, or serve from nearer to those who ask; "
    "run it on the server's node to judge the server alone."
)


def _network(run: Run) -> Part | None:
    found = run.find(ROUND_TRIP, state="loaded") or run.find(ROUND_TRIP, state="idle")
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


def _answer(until: str, parts: Sequence[Part], split: Sequence[Measurement]) -> list[Measurement]:
    """``split``: network and server of the first part, which is a server's whole time; empty for another first part."""
    whole = compose(parts)
    shares = dict(whole.shares)
    if median := {m.labels["part"]: m.value for m in split if m.labels["statistic"] == "p50"}:
        both, every = shares.pop(parts[0].name), sum(median.values()) or 1.0
        shares = {name: both * value / every for name, value in median.items()} | shares
    stand_in = next((one.stand_in for one in parts if one.stand_in), None)
    labels = {"until": until} | ({"stand_in": stand_in} if stand_in else {})
    invalid = "; ".join(dict.fromkeys(one.invalid for one in parts if one.invalid)) or None
    samples = min(one.samples for one in parts)

    def made(metric: str, value: float, interval: Interval | None = None, **more: str) -> Measurement:
        at, around = {**labels, **more}, interval or (value, value)
        return Measurement(metric=metric, value=value, interval=around, samples=samples, labels=at, invalid=invalid)

    return [
        made("response_over_budget_ratio", whole.over, whole.bounds, budget_seconds=f"{BUDGET_SECONDS:g}"),
        made("response_seconds", whole.p50, statistic="p50"),
        made("response_seconds", whole.p99, statistic="p99"),
        made("response_left_seconds", whole.left),
        *(made("response_part_ratio", share, part=name) for name, share in shares.items()),
    ]
