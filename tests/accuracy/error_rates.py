"""False alarms and power of the nightly gate: the real judging code over synthetic nights of known truth.

``make error-rates`` or ``python -m tests.accuracy.error_rates [--gates 1000] [--nights 30]``. Seeded; prints one table
a world, ours beside the rules that others use on the same nights, and ends with status 1 when a claim fails.

A gate is eight series. *False alarms*: nights on which any of them is REGRESSED while nothing is wrong. *Again*: nights
on which something is measured a second time, *third*: a third time. *Power*: how often a series that is worse by so
much is REGRESSED that night; *lasting*: at least once within seven nights. *At least visible*: power at the drop that
the series itself says it would see with 80 %. *GO*: healthy nights on which the gate is GO once what was suspect was
measured again, and what straddles its limit goes on for more rounds, where the limits lie a fifth or a third below
what the node does (25 or 50 % spare).

Then what hundreds of nights bring (`tests.accuracy._many_nights`): a decline of 0.3 % a night, a drop that nobody
mends, and healthy nodes.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from bench.judge.baseline.detector import Night, SeriesCall, SeriesState, Track
from bench.judge.baseline.prediction import Policy, Prior, baseline_of, prior_of
from bench.judge.baseline.scale import Scale, ScaleKind
from bench.judge.pooling import LOOKS
from bench.judge.sessions import Spread, interval_of
from tests.accuracy._many_nights import (
    A_NIGHT,
    BASELINE,
    BROKEN,
    NIGHTS,
    SPREADS,
    TOO_MUCH,
    as_measured,
    decline,
    healthy,
    unmended,
)
from tests.accuracy._worlds import METRICS, REPEATS, WORLDS, Array, Batch, draw
from tests.accuracy.absolute_rates import READ, of_session

SCALE = Scale(ScaleKind.RATIO, 1.0)
DROPS = (0.05, 0.10, 0.20)
MARGINS = {"go20": 0.2, "go33": 1 / 3}
LASTING = 7
CHUNK = 50
SEED = 20260101
COLUMNS = ("false", "again", "third", "p5", "p10", "p20", "lasting", "least", *MARGINS)
OF_GATES = ("false", "again", "third", *MARGINS)
HEADS = ("false", "again", "third", "5 %", "10 %", "20 %", "lasting", "visible", "GO, 1/5", "GO, 1/3")
Row = dict[str, float]


def ours(batch: Batch, nights: int, pooled: bool) -> Row:
    """Sums over the batch of what each series and each gate did."""
    policy = Policy()
    found = dict.fromkeys(COLUMNS, 0.0)
    for gate in range(batch.first.shape[0]):
        alarm = again = third = False
        go = dict.fromkeys(MARGINS, True)
        for metric in range(METRICS):
            prior = _prior(batch.siblings[gate, metric], policy) if pooled else None
            track = Track(policy, SCALE, prior)
            first, more = batch.first[gate, metric].tolist(), batch.again[gate, metric].tolist()
            for one, two in zip(first[:nights], more[:nights], strict=True):
                track.enter(as_measured(track, one, two))
            first, more = first[nights:], more[nights:]
            tonight = as_measured(track, first[0], more[0])
            call = track.judge(tonight)
            again |= tonight.again is not None
            third |= tonight.third is not None
            base = baseline_of(track.normal, SCALE.floor(policy.scale_floor), prior)
            spread = Spread(base.deviation, base.df, logarithmic=True, whole=True, looks=LOOKS)
            rounds = batch.rounds[gate, metric]
            for name, margin in MARGINS.items():
                go[name] = go[name] and _passes(track, call, more[0], rounds, spread, 1.0 - margin)
            alarm |= _regressed(track, first[0], more[0], 0.0)
            for name, drop in zip(("p5", "p10", "p20"), DROPS, strict=True):
                found[name] += _regressed(track, first[0], more[0], -math.log1p(-drop))
            least = track.judge(Night(first[0])).least or 0.0
            found["least"] += _regressed(track, first[0], more[0], least)
            found["lasting"] += _lasting(track, first, more)
        found["false"] += alarm
        found["again"] += again
        found["third"] += third
        for name, passed in go.items():
            found[name] += passed
    return found


def _passes(
    track: Track, call: SeriesCall, again: Sequence[float], rounds: Array, spread: Spread, least: float
) -> bool:
    """Does the series let its gate be GO, whose limit is ``least`` of what the node does?

    By the interval that the absolute gate decides by, from the node's own nights; while it straddles the limit the
    session goes on, as `bench run` does, and all its repeats (``rounds``) are the night's figure.
    """
    for looks in range(1, LOOKS + 1):
        session = of_session(np.exp(rounds[: looks * REPEATS]).tolist(), READ)
        low, high = interval_of(session, spread)
        if low >= least or high < least:
            break
    if looks > 1:
        call = track.judge(as_measured(track, math.log(session.value), again))
    hides = call.state is SeriesState.UNDETECTABLE and (call.hidden is None or math.exp(call.hidden) < least)
    return low >= least and not hides and call.state in (SeriesState.OK, SeriesState.UNDETECTABLE)


def _prior(siblings: Array, policy: Policy) -> Prior | None:
    return prior_of(siblings.tolist(), SCALE.floor(policy.scale_floor), policy.fewest)


def _regressed(track: Track, first: float, again: Sequence[float], drop: float) -> bool:
    return (
        track.judge(as_measured(track, first - drop, [value - drop for value in again])).state is SeriesState.REGRESSED
    )


def _lasting(track: Track, first: Sequence[float], again: Sequence[Sequence[float]]) -> bool:
    """A tenth less from tonight on: is it found within seven nights? Enters the nights, so it comes last."""
    drop = -math.log(0.9)
    for one, more in zip(first, again, strict=True):
        if track.enter(as_measured(track, one - drop, [value - drop for value in more])).state is SeriesState.REGRESSED:
            return True
    return False


# --- what others do, on one look at the same nights


def fixed(history: Array, tonight: Array) -> Array:
    """More than 10 % below the mean of the nights' medians (a threshold in a dashboard)."""
    found: Array = np.median(tonight, -1) < np.median(history, -1).mean(-1) + math.log(0.9)
    return found


def z_score(history: Array, tonight: Array) -> Array:
    """More than five standard deviations below the mean (conbench's default)."""
    medians = np.median(history, -1)
    found: Array = (medians.mean(-1) - np.median(tonight, -1)) / medians.std(-1, ddof=1) > 5.0
    return found


def mann_whitney(history: Array, tonight: Array) -> Array:
    """Mann-Whitney over all repeats pooled, p < 0.01 / 8, and 5 % lower in the median (benchstat, Kayenta)."""
    from scipy.stats import mannwhitneyu

    flat = history.reshape(*history.shape[:-2], -1)
    p = mannwhitneyu(tonight, flat, alternative="less", axis=-1, method="asymptotic").pvalue
    found: Array = (p < 0.01 / METRICS) & (np.median(tonight, -1) < np.median(flat, -1) + math.log(0.95))
    return found


def theirs(batch: Batch, nights: int, rule: Callable[[Array, Array], Array]) -> Row:
    history = batch.repeats[:, :, :nights]
    tonight = [batch.repeats[:, :, nights + night] for night in range(LASTING)]
    found = dict.fromkeys(COLUMNS, math.nan)
    found["false"] = float(rule(history, tonight[0]).any(-1).sum())
    for name, drop in zip(("p5", "p10", "p20"), DROPS, strict=True):
        found[name] = float(rule(history, tonight[0] + math.log1p(-drop)).sum())
    hits = np.stack([rule(history, night + math.log(0.9)) for night in tonight])
    found["lasting"] = float(hits.any(0).sum())
    return found


RULES: dict[str, Callable[[Batch, int], Row]] = {
    "ours, 8 siblings": lambda batch, nights: ours(batch, nights, pooled=True),
    "ours, node alone": lambda batch, nights: ours(batch, nights, pooled=False),
    "fixed 10 %": lambda batch, nights: theirs(batch, nights, fixed),
    "z > 5": lambda batch, nights: theirs(batch, nights, z_score),
    "Mann-Whitney pooled": lambda batch, nights: theirs(batch, nights, mann_whitney),
}


def _chunk(job: tuple[str, int, int, int, float, tuple[str, ...]]) -> dict[str, Row]:
    world, number, gates, nights, stays, rules = job
    rng = np.random.default_rng([SEED, WORLDS.index(world), number, nights, round(100 * stays)])
    batch = draw(rng, world, gates, nights, LASTING, stays)
    return {rule: RULES[rule](batch, nights) for rule in rules}


def measure(
    pool: multiprocessing.pool.Pool, world: str, gates: int, nights: int, stays: float, rules: Sequence[str]
) -> dict[str, Row]:
    """Rates in per cent, of gates (false, again) or of series."""
    jobs = [(world, number, CHUNK, nights, stays, tuple(rules)) for number in range(math.ceil(gates / CHUNK))]
    total: dict[str, Row] = {rule: dict.fromkeys(COLUMNS, 0.0) for rule in rules}
    for found in pool.imap_unordered(_chunk, jobs):
        for rule, row in found.items():
            for column, value in row.items():
                total[rule][column] += value
    drawn = len(jobs) * CHUNK
    of = {column: drawn * (1 if column in OF_GATES else METRICS) for column in COLUMNS}
    return {rule: {c: 100.0 * v / of[c] for c, v in row.items()} for rule, row in total.items()}


def _line(name: str, row: Row) -> str:
    cells = "".join(f"{'-' if math.isnan(row[c]) else format(row[c], '.1f'):>9}" for c in COLUMNS)
    return f"  {name:<22}{cells}"


#: What the rule of before gave on the same draws of 1,000 gate-nights, with siblings and alone: false, 5 %, 10 %,
#: 20 %, lasting. Ours is to alarm no more often, and to find no less. False alarms of a node alone are of 7,720 nights.
BEFORE = {
    "normal": ((0.4, 5.2, 39.8, 95.8, 91.3), (0.6, 5.1, 37.9, 95.0, 89.5)),
    "autocorrelated": ((1.2, 5.4, 41.6, 96.4, 86.4), (1.4, 5.2, 39.5, 95.7, 84.1)),
    "heavy-tailed": ((1.9, 6.9, 48.2, 97.3, 94.7), (1.85, 6.9, 46.3, 96.6, 93.2)),
    "mixed": ((0.3, 4.3, 37.8, 95.1, 89.4), (0.83, 4.2, 35.7, 94.2, 87.4)),
    "slow night": ((1.7, 4.0, 33.1, 94.2, 88.2), (1.93, 4.1, 31.8, 93.0, 85.7)),
}
FOUND = ("p5", "p10", "p20", "lasting")
#: In each world: healthy gates that are GO with 25 and with 50 % spare, and 10 % found in one night, in per cent.
LEAST_GO, LEAST_FOUND = (90.0, 95.0), 35.0


def _open(share: float, draws: float) -> float:
    """What so many draws leave open of a share, both in per cent: three standard deviations, as the claims are many."""
    return 3.0 * math.sqrt(share * (100.0 - share) / draws)


def _claims(world: str, rule: str, row: Row, gates: int) -> list[str]:
    """What the docs promise, for ours: each that fails by more than so many draws leave open, as a line."""
    false, *found = BEFORE[world][not rule.endswith("siblings")]
    wanted = [("false", row["false"] <= false + _open(false, gates))]
    wanted += [(name, row[name] >= least - _open(least, gates)) for name, least in zip(MARGINS, LEAST_GO, strict=True)]
    wanted += [
        (name, row[name] >= share - _open(share, gates * METRICS)) for name, share in zip(FOUND, found, strict=True)
    ]
    wanted += [("p10", row["p10"] >= LEAST_FOUND - _open(LEAST_FOUND, gates * METRICS))]
    wanted += [("least", 77.0 <= row["least"] <= 86.0)]
    return [f"{world}, {rule}: {name} is {row[name]:.2f} %" for name, good in wanted if not good]


def _over_many_nights(
    pool: multiprocessing.pool.Pool, nodes: int, series: int, worlds: Sequence[str], stays: float
) -> list[str]:
    """Prints what hundreds of nights bring; each claim that does not hold, as a line."""
    failed = []
    print(f"a decline of {100 * A_NIGHT:.1f} % a night: lost when found, per cent, of {series} series", flush=True)
    jobs = [(spread, start, series) for spread in SPREADS for start in (0, 14, 60)]
    for (spread, start, _), costs in zip(jobs, pool.map(decline, jobs, chunksize=1), strict=True):
        middle, most, late = float(np.median(costs)), max(costs), sum(cost >= TOO_MUCH for cost in costs)
        told = f"nights vary by {100 * spread:.0f} %, from night {start}"
        print(f"  {told:<36}median {100 * middle:4.1f}  most {100 * most:4.1f}  15 % or more {late}", flush=True)
        failed += [f"{told}: {late} of {series} lost 15 %"] if late else []
    drop = f"a drop of {100 * BROKEN:.0f} % at night {BASELINE} that nobody mends"
    print(f"{drop}: nights of {NIGHTS} that are not REGRESSED")
    broken = [(spread, nodes) for spread in SPREADS]
    for (spread, _), (well, of) in zip(broken, pool.map(unmended, broken, chunksize=1), strict=True):
        print(f"  nights vary by {100 * spread:.0f} %: {well} of {of}", flush=True)
        failed += [f"unmended, {100 * spread:.0f} %: {well} nights were not REGRESSED"] if well else []
    print(
        f"{NIGHTS // 2} nights of {nodes} healthy nodes, alone: gate-nights with a REGRESSED series, per cent",
        flush=True,
    )
    total = {world: np.zeros(2) for world in worlds}
    for world, bad, of in pool.imap_unordered(healthy, [(w, n, stays) for w in worlds for n in range(nodes)]):
        total[world] += bad, of
    for world, (alarms, gate_nights) in total.items():
        print(f"  {world:<22}{100 * alarms / gate_nights:>9.1f}", flush=True)
        false = BEFORE[world][1][0]
        most = false + _open(false, gate_nights)
        failed += [f"{world}, many nights: NO-GO too often"] if 100 * alarms > most * gate_nights else []
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gates", type=int, default=1000, help="gate-nights a world")
    parser.add_argument("--nights", type=int, default=30, help="baseline nights")
    parser.add_argument("--nodes", type=int, default=40, help="nodes that are followed over many nights")
    parser.add_argument("--series", type=int, default=200, help="series that decline")
    parser.add_argument("--only", action="append", choices=list(RULES), help="only this rule; again for more")
    parser.add_argument("--world", action="append", choices=WORLDS, help="only this world; again for more")
    parser.add_argument("--stays", type=float, default=0.5, help="share of the night that a second measurement shares")
    asked = parser.parse_args()
    rules, started = asked.only or list(RULES), time.monotonic()
    print(
        f"{asked.gates} gate-nights of {METRICS} series a world, {asked.nights} baseline nights; per cent", flush=True
    )
    print(f"  {'':<22}" + "".join(f"{head:>9}" for head in HEADS))
    failed: list[str] = []
    with multiprocessing.Pool(2) as pool:
        for world in asked.world or WORLDS:
            print(world, flush=True)
            for rule, row in measure(pool, world, asked.gates, asked.nights, asked.stays, rules).items():
                print(_line(rule, row), flush=True)
                failed += _claims(world, rule, row, asked.gates) if rule.startswith("ours") else []
        failed += _over_many_nights(pool, asked.nodes, asked.series, asked.world or WORLDS, asked.stays)
    for line in failed:
        print(f"FAIL {line}")
    print(f"{'FAIL' if failed else 'ok  '} error rates of the nightly gate ({time.monotonic() - started:.0f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
