"""The decision on nights that really were: 21 sessions of five fio repeats on a busy virtual machine, recorded."""

from __future__ import annotations

import json
import random
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

from bench.judge.baseline.detector import Night, SeriesState, Track
from bench.judge.baseline.prediction import Policy
from bench.judge.baseline.scale import Scale, ScaleKind
from tests.accuracy._many_nights import as_measured

RECORDED = Path(__file__).parent / "data" / "fio-sessions.jsonl"
UP, DOWN = Scale(ScaleKind.RATIO, 1.0), Scale(ScaleKind.RATIO, -1.0)
SPLITS, BASELINE = 300, 14


@pytest.fixture(scope="module")
def sessions() -> dict[tuple[str, str], list[list[float]]]:
    """(job, field) -> the repeats of each whole session, in their order."""
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in RECORDED.read_text().splitlines():
        row = json.loads(line)
        for name in ("bw", "p99"):
            found[row["job"], name][row["session"]].append(float(row[name]))
    return {key: [repeats for repeats in by.values() if len(repeats) >= 5] for key, by in found.items()}


def _scale(field: str) -> Scale:
    return UP if field == "bw" else DOWN


def _alarms(sessions: dict[tuple[str, str], list[list[float]]], factor: float) -> tuple[int, int]:
    """(splits on which any series is regressed, those on which a fixed threshold of 10 % alarms): tonight's second
    and third measurement are other sessions, the worst case of some that share nothing with the first."""
    noise, regressed, fixed = random.Random(8), 0, 0
    for _ in range(SPLITS):
        alarm = crude = False
        order = noise.sample(range(min(len(nights) for nights in sessions.values())), BASELINE + 3)
        for (_, name), nights in sessions.items():
            scale, medians = _scale(name), [statistics.median(nights[index]) for index in order]
            track = Track(Policy(), scale)
            for value in medians[:BASELINE]:
                track.enter(Night(scale.of(value)))
            worse = factor if name == "bw" else 1.0 / factor
            first, *again = (scale.of(value * worse) for value in medians[BASELINE:])
            alarm |= track.judge(as_measured(track, first, again)).state is SeriesState.REGRESSED
            crude |= statistics.fmean(map(scale.of, medians[:BASELINE])) - first > 0.105
        regressed += alarm
        fixed += crude
    return regressed, fixed


def test_healthy_nights_do_not_alarm(sessions: dict[tuple[str, str], list[list[float]]]) -> None:
    assert len(sessions) == 8 and min(map(len, sessions.values())) >= BASELINE + 3
    regressed, fixed = _alarms(sessions, 1.0)
    assert regressed <= 0.02 * SPLITS
    assert fixed > 0.5 * SPLITS  # the same nights under a fixed 10 %: what a gate must not do


def test_a_disk_at_a_tenth_of_its_speed_is_found_in_spite_of_the_noise(
    sessions: dict[tuple[str, str], list[list[float]]],
) -> None:
    assert _alarms(sessions, 0.1)[0] > 0.95 * SPLITS


def test_such_nights_are_said_to_be_undetectable(sessions: dict[tuple[str, str], list[list[float]]]) -> None:
    """Their night-to-night spread is 11 to 94 %: a pass there would mean nothing."""
    for (job, name), nights in sessions.items():
        scale = _scale(name)
        track = Track(Policy(), scale)
        for repeats in nights:
            track.enter(Night(scale.of(statistics.median(repeats))))
        typical = scale.back(statistics.fmean(track.normal))
        call = track.judge(Night(scale.of(typical)))
        assert call.state is SeriesState.UNDETECTABLE, (job, name)
