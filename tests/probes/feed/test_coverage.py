"""The intervals of the feed hold the truth as often as they say, in simulated worlds, through the real functions.

A world is a set of true rates, and what disturbs them: noise within a window (white, and slow), noise between turns, a
drift over the whole measurement (the truth is its mean), a burst credit that dies away in each turn. The curves go
through `parse`, which chooses windows, makes rates, and from them what follows; several rounds go through `pool`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from bench.judge.attribution import RATE, components
from bench.model import Effort, Measurement
from probes.feed.parse import parse
from probes.feed.plan import schedule
from probes.feed.rates import pool as pooled_turns
from probes.feed.records import Arm, End, Ready, line
from probes.feed.waterfall import ARMS, Rates, pool

STEP = 0.1
TRIALS = 200
ROWS = [row for row in schedule(Effort.QUICK, True, 4, False) if row.arm in ARMS]
SECONDS = sum(row.warm + row.longest for row in ROWS)
#: Copy and decode cost nothing, decode and storage bind: each part of starvation has its turn.
STARVED = dict(zip(ARMS, (1000.0, 950.0, 700.0, 600.0, 500.0), strict=True))
FED = dict(zip(ARMS, (1000.0, 990.0, 980.0, 10_000.0, 970.0), strict=True))
READY = Ready(
    accelerator="cpu", name="CPU", batch=8, sample_bytes=1000, data_bytes=1, data_seconds=1.0, direct=True, workers=4,
    block_bytes=1000, decode="crc32", cores=2,
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """All as shares of the rate. ``white`` and ``slow``: of 0.1 s; ``turn``: between turns; ``drift``: end to end.

    ``burst``: what each reading turn begins with; half of it is left after 0.3 s. A tail that is slower than the window
    cannot be seen in it.
    """

    white: float = 0.0
    slow: float = 0.0
    turn: float = 0.0
    drift: float = 0.0
    burst: float = 0.0


WORLDS = {
    "noise of windows": World(white=0.05),
    "slow noise": World(slow=0.03),
    "turns": World(white=0.01, turn=0.02),
    "turns that differ much": World(white=0.01, turn=0.05),
    "drift": World(white=0.02, turn=0.01, drift=0.05),
    "a burst that dies away": World(white=0.01, turn=0.005, burst=0.03),
}


def curve(rate: float, world: World, at: float, seconds: float, rng: random.Random, burst: float) -> list[float]:
    level, slow, done, made = 1.0 + rng.gauss(0.0, world.turn), rng.gauss(0.0, world.slow), 0.0, [0.0]
    for step in range(round(seconds / STEP)):
        now = step * STEP
        slow = 0.9 * slow + rng.gauss(0.0, world.slow * (1.0 - 0.9**2) ** 0.5)
        share = level + slow + rng.gauss(0.0, world.white) + burst * 0.5 ** (now / 0.3)
        share += world.drift * ((at + now) / SECONDS - 0.5)
        done += max(0.0, rate * share) * STEP
        made.append(done)
    return made


def measured(truth: Mapping[str, float], world: World, rng: random.Random) -> tuple[Measurement, ...]:
    """One round of the quick schedule."""
    said, at = [line(READY)], 0.0
    for row in ROWS:
        seconds = row.warm + row.shortest
        burst = world.burst if row.arm in ("fetch", "storage") else 0.0
        points = curve(truth[row.arm], world, at, seconds, rng, burst)
        at += row.warm + row.longest
        said.append(
            line(
                Arm(
                    arm=row.arm, turn=row.turn, grid_seconds=STEP, warm_seconds=row.warm,
                    shortest_seconds=row.shortest, curve=points, seconds=seconds, read_bytes=1, own_device_bytes=1,
                )
            )
        )  # fmt: skip
    return parse("\n".join((*said, line(End()))), "/data", "").measurements


def truths(rates: Mapping[str, float]) -> dict[str, float]:
    c, t, p, f, s = (rates[arm] for arm in ARMS)
    parts = components(c, t, p, f, s).model_dump()
    withheld = parts.pop("storage")
    return {**rates, **parts, "total": 1.0 - s / c, "headroom": f / c, "storage part": withheld}


def name_of(m: Measurement) -> str | None:
    if m.metric == "starvation_ratio":
        component = m.labels["component"]
        return "storage part" if component == "storage" else component
    return {RATE: m.labels.get("stage"), "storage_headroom_ratio": "headroom"}.get(m.metric)


def coverage(rates: Mapping[str, float], world: World, rounds: int, trials: int) -> dict[str, float]:
    rng, true, held = random.Random(5), truths(rates), Counter[str]()
    for _ in range(trials):
        found = pool([measured(rates, world, rng) for _ in range(rounds)])
        for m in found:
            if name := name_of(m):
                held[name] += m.interval[0] <= true[name] <= m.interval[1]
    return {name: held[name] / trials for name in true if name in held}


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_intervals_hold_the_truth(world: World, rounds: int) -> None:
    """Least and largest of two turns held a drifting rate in 50 % of trials, and t on windows that were chosen because
    they look flat in 48 to 73. What holds 95 % shows 92 and more in 200 trials (two standard errors)."""
    for name, share in coverage(STARVED, world, rounds, TRIALS // rounds).items():
        assert share >= 0.92, name


def test_storage_that_outruns_the_decode_has_no_part_however_the_accelerator_drifts() -> None:
    """All figures were void when the accelerator's own rate was 5 % apart: 4 of 6 quick runs on two quiet cores."""
    rng, world = random.Random(2), World(white=0.02, turn=0.03)
    drifted = 0
    for _ in range(50):
        found = {name_of(m): m for m in measured(FED, world, rng)}
        own, part, headroom = found["resident"], found["storage part"], found["headroom"]
        assert (own.invalid, part.invalid, part.interval) == (None, None, (0.0, 0.0))
        assert headroom.invalid is None and headroom.interval[0] <= 10.0 <= headroom.interval[1]
        drifted += (own.wide or "").startswith("accelerator_drifted")
    assert drifted >= 40


def round_of(**turns: tuple[float, ...]) -> list[Measurement]:
    rates = {arm: pooled_turns([(turn,) for turn in rates]) for arm, rates in turns.items()}
    return list(Rates({"path": "/data"}, rates).measurements({}))


def test_a_second_round_keeps_the_uncertainty_of_the_rates_that_it_divides() -> None:
    """C = 100 +- 3, P = 100 +- 5, F about 90.2: one round said 4.3 to 15.7 %, two of them 9.7 to 9.9 %, and PASS."""
    one = round_of(
        resident=(98.8, 100.0, 101.2), transfer=(100.0,) * 3, preprocess=(98.0, 100.0, 102.0),
        fetch=(90.15, 90.2, 90.25), storage=(90.0,) * 3,
    )  # fmt: skip
    for rounds in (1, 2, 3):
        part = next(m for m in pool([one] * rounds) if name_of(m) == "storage part")
        assert part.interval[0] < 0.09 < 0.11 < part.interval[1]
        assert part.repeats == ()


def test_rounds_that_disagree_are_not_averaged_away() -> None:
    (own,) = pool([round_of(resident=(0.999 * rate, rate, 1.001 * rate)) for rate in (100.0, 110.0)])
    assert own.interval[0] <= 100.0 and own.interval[1] >= 110.0


def test_an_invalid_round_spoils_nothing() -> None:
    rng = random.Random(3)
    good, bad = (measured(STARVED, World(turn=0.01), rng) for _ in range(2))
    bad = tuple(m.model_copy(update={"invalid": "contended: x"}) for m in bad)
    for rounds in ([good, bad], [bad, good]):
        assert [(m.metric, m.value) for m in pool(rounds)] == [(m.metric, m.value) for m in pool([good])]
    assert all(m.invalid for m in pool([bad, bad]) if name_of(m) is not None)
