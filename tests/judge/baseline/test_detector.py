"""The nightly decision on one series: nights of known truth in, the right word out."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge.baseline.detector import SEVERITY, Night, SeriesCall, SeriesState, Track
from bench.judge.baseline.prediction import Policy, Prior, line_of, memory, prior_of
from bench.judge.baseline.scale import Scale, ScaleKind, scale_of
from bench.model import Metric

UP, DOWN = Scale(ScaleKind.RATIO, 1.0), Scale(ScaleKind.RATIO, -1.0)


def _track(
    nights: int = 20, spread: float = 0.02, scale: Scale = UP, seed: int = 3, prior: Prior | None = None
) -> Track:
    noise = random.Random(seed)
    track = Track(Policy(), scale, prior)
    for _ in range(nights):
        track.enter(Night(scale.of(1e9 * math.exp(noise.gauss(0.0, spread)))))
    return track


def _measured(values: Sequence[float]) -> Night:
    first, again, third, *_ = *(UP.of(value) for value in values), None, None
    return Night(first, again, third)


def _enter(track: Track, *ratios: float) -> list[SeriesCall]:
    return [track.enter(Night(track.scale.of(1e9 * ratio))) for ratio in ratios]


def test_what_was_mended_is_no_decline() -> None:
    track = Track(Policy(), UP)
    for night in range(44):
        track.enter(Night(UP.of(1e9 * 0.9978**night)))
    assert track.judge(Night(UP.of(0.9978**44 * 1e9))).declined
    assert track.judge(Night(UP.of(1e9))).state is SeriesState.OK


def test_a_line_through_the_nights_is_that_of_least_squares() -> None:
    noise = random.Random(5)
    nights = [1.0 - 0.01 * at + noise.gauss(0.0, 0.03) for at in range(50)]
    (slope, start), cov = np.polyfit(range(50), nights, 1, cov=True)
    line = line_of(nights, 0.0)
    assert [line.start, line.drop] == pytest.approx([start, -49 * slope])
    memoryless = 49 * math.sqrt(cov[0, 0]) * math.sqrt(48 / 49)  # ours: the spread of nights about the line, 49 degrees
    assert line.error >= memoryless * 0.99 and line.df == 48.0


def test_the_first_of_two_measurements_counts_for_half() -> None:
    """A night is measured again because it was low: the mean of the nights took the low one alone."""
    track = _track(20, 0.04)
    for _ in range(6):
        track.enter(Night(UP.of(0.88e9), UP.of(1.06e9)))
    assert track.judge(Night(UP.of(0.96e9))).state is not SeriesState.REGRESSED
    lasting = _track(20, 0.04)
    for _ in range(6):
        lasting.enter(Night(UP.of(0.88e9), UP.of(0.9e9)))
    assert lasting.judge(Night(UP.of(0.91e9))).state is SeriesState.REGRESSED


@pytest.mark.parametrize("nights", range(7))
def test_it_warms_up_for_seven_nights(nights: int) -> None:
    call = _track(nights).judge(Night(UP.of(1.0)))
    assert (call.state, call.nights) == (SeriesState.WARMING, nights)


def test_one_bad_night_is_a_suspicion_and_the_next_one_confirms_it() -> None:
    calls = _enter(_track(), 0.75, 0.76, 0.75, 1.0)
    assert [call.state for call in calls] == [
        SeriesState.SUSPECT,
        SeriesState.REGRESSED,
        SeriesState.REGRESSED,
        SeriesState.OK,
    ]


def test_a_second_measurement_of_the_night_confirms_or_clears_it() -> None:
    track = _track()
    bad, good = UP.of(0.75e9), UP.of(1.0e9)
    assert track.judge(Night(bad)).state is SeriesState.SUSPECT
    assert track.judge(Night(bad, bad)).state is SeriesState.REGRESSED
    assert track.judge(Night(bad, good)).state is SeriesState.OK


def test_a_third_measurement_decides_what_two_leave_open() -> None:
    """Two that are bad by little stayed suspect, whatever else was measured."""
    track = _track(30, spread=0.03)
    bad, good, far = UP.of(0.905e9), UP.of(0.97e9), UP.of(0.75e9)
    assert track.judge(Night(bad, bad)).state is SeriesState.SUSPECT
    assert track.judge(Night(bad, bad, bad)).state is SeriesState.REGRESSED
    assert track.judge(Night(bad, bad, good)).state is SeriesState.OK
    assert track.judge(Night(bad, bad, UP.of(0.948e9))).state is not SeriesState.REGRESSED
    assert track.judge(Night(far, far, good)).state is SeriesState.REGRESSED  # out of all doubt without a third


@pytest.mark.parametrize("scale", [UP, DOWN])
def test_worse_is_down_for_a_rate_and_up_for_a_time(scale: Scale) -> None:
    track = _track(scale=scale)
    worse = 0.7e9 if scale is UP else 1.4e9
    assert track.judge(Night(scale.of(worse))).state is SeriesState.SUSPECT
    assert track.judge(Night(scale.of(1e18 / worse))).state is SeriesState.OK


def test_a_drop_too_small_to_matter_is_none_however_quiet_the_node() -> None:
    track = _track(spread=0.0001)
    assert track.judge(Night(UP.of(0.96e9), UP.of(0.96e9))).state is SeriesState.OK
    assert track.judge(Night(UP.of(0.93e9), UP.of(0.93e9))).state is SeriesState.REGRESSED


def test_a_night_that_is_slow_by_little_is_confirmed_by_the_nights_after_it() -> None:
    """Nights that are slow by little come and go. Two bad measurements of one leave it suspect, never well."""
    track = _track(spread=0.02)
    slow = Night(UP.of(0.943e9), UP.of(0.943e9))
    states = [track.enter(slow).state for _ in range(7)]
    assert states[0] is SeriesState.SUSPECT
    assert states[-1] is SeriesState.REGRESSED


@pytest.mark.parametrize("spread", [0.01, 0.03, 0.05])
def test_a_regression_that_nobody_mends_is_one_every_night(spread: float) -> None:
    """Was well again after 62 nights, nobody having acted."""
    for seed in range(3):
        track, noise = _track(30, spread, seed=seed), random.Random(seed)
        calls = _enter(track, *(0.7 * math.exp(noise.gauss(0.0, spread)) for _ in range(370)))
        assert {call.state for call in calls[1:]} == {SeriesState.REGRESSED}
        assert calls[-1].centre == pytest.approx(calls[0].centre, rel=1e-9)
        assert _enter(track, 1.0)[0].state in (SeriesState.OK, SeriesState.UNDETECTABLE)


def test_a_night_half_way_is_no_good_night() -> None:
    """Was well: 10 % are within what is normal here, but nearer to a regression of 18 % than to the nights before."""
    track = _track(30, spread=0.05)
    assert track.enter(Night(UP.of(0.82e9), UP.of(0.82e9))).state is SeriesState.REGRESSED
    (half,) = _enter(track, 0.895)
    assert (half.state, half.unmended) == (SeriesState.REGRESSED, 1)
    assert _enter(track, 0.95)[0].state is SeriesState.OK


def test_nights_judged_bad_bring_no_warming_back() -> None:
    """A NO-GO night is never part of what is normal, but it does not push the good ones out either."""
    track = _track(30)
    for _ in range(370):
        call = track.enter(Night(UP.of(0.7e9), usable=False))
    assert (call.state, call.nights) == (SeriesState.REGRESSED, 30)
    assert track.enter(Night(UP.of(1e9), usable=False)).state is SeriesState.OK
    assert len(track.normal) == 30


def test_one_outlier_neither_alarms_twice_nor_widens_the_month() -> None:
    track = _track(30)
    least = track.judge(Night(UP.of(1e9))).least
    calls = _enter(track, 0.3, 1.0, 1.0)
    assert [call.state for call in calls] == [SeriesState.SUSPECT, SeriesState.OK, SeriesState.OK]
    after = track.judge(Night(UP.of(1e9))).least
    assert after is not None and least is not None and after < 1.5 * least


def test_a_small_shift_that_lasts_is_found_though_no_night_alarms() -> None:
    track = _track(30, spread=0.035, seed=11)
    noise = random.Random(5)
    states = [_enter(track, 0.93 * math.exp(noise.gauss(0, 0.01)))[0] for _ in range(7)]
    found = next(call for call in states if call.state is SeriesState.REGRESSED)
    assert found.since > 1


def test_what_has_been_mended_is_over_at_once() -> None:
    track = _track(30)
    assert _enter(track, *([0.9] * 7))[-1].state is SeriesState.REGRESSED
    assert _enter(track, 1.0)[0].state is SeriesState.OK


def _declined(spread: float, seed: int, start: int, pinned: Sequence[float] = ()) -> float:
    """The share that a series had lost when it was found, at 0.3 % a night from night ``start`` on; 1 for never."""
    noise, track = random.Random(seed), Track(Policy(), UP, pinned=pinned)
    for night in range(start + 100):
        level = 0.997 ** max(night - start, 0)
        first, again = (UP.of(1e9 * level * math.exp(noise.gauss(0.0, spread))) for _ in range(2))
        bad = track.judge(Night(first)).state in (SeriesState.SUSPECT, SeriesState.REGRESSED)
        state = track.enter(Night(first, again if bad else None)).state
        if state is SeriesState.REGRESSED and night > start:
            return 1.0 - level
    return 1.0


@pytest.mark.parametrize("start", [0, 14, 60])
@pytest.mark.parametrize("spread", [0.01, 0.03, 0.05])
def test_a_slow_decline_is_found_though_the_last_nights_follow_it(spread: float, start: int) -> None:
    """Was never found at a spread of 1 %: 45 % were lost after 200 nights. Where it began on the first night and nights
    vary by 5 %, one series of ten had lost 15 % when it was found: the first good nights were part of the decline.
    """
    assert max(_declined(spread, seed, start) for seed in range(8)) < 0.15


def test_a_noisy_series_is_undetectable_and_never_a_pass() -> None:
    call = _track(30, spread=0.3).judge(Night(UP.of(1e9)))
    assert call.state is SeriesState.UNDETECTABLE
    assert call.least is not None and -math.expm1(-call.least) > 0.20


def test_nights_judged_bad_are_not_learnt_from() -> None:
    track = _track(10)
    for _ in range(20):
        track.enter(Night(UP.of(0.5e9), usable=False))
    assert len(track.normal) == 10
    assert track.judge(Night(UP.of(1e9))).state is SeriesState.OK


def test_siblings_make_up_for_few_nights() -> None:
    siblings = [_track(30, 0.04, seed=seed).normal for seed in range(10, 18)]
    prior = prior_of(siblings, 0.005)
    assert prior is not None
    assert prior.variance == pytest.approx(0.04**2, rel=0.4)
    alone, pooled = (_track(7, 0.04, prior=p).judge(Night(UP.of(1e9))).least for p in (None, prior))
    assert alone is not None and pooled is not None and pooled < alone


def test_siblings_that_are_not_alike_count_for_little() -> None:
    unlike = prior_of([_track(30, spread=s, seed=4).normal for s in (0.003, 0.01, 0.05, 0.2, 0.4)], 0.0001)
    alike = prior_of([_track(30, seed=seed).normal for seed in range(5)], 0.0001)
    assert alike is not None and alike.df > 10
    assert unlike is None or unlike.df < 3
    assert prior_of([_track(30).normal, _track(30).normal], 0.005) is None
    assert prior_of([_track(3).normal] * 9, 0.005) is None


def test_memory_is_seen_in_nights_that_have_one() -> None:
    noise, value, nights = random.Random(2), 0.0, []
    for _ in range(2000):
        value = 0.5 * value + noise.gauss(0.0, 1.0)
        nights.append(value)
    assert memory(nights, sum(nights) / len(nights)) == pytest.approx(0.5, abs=0.05)
    assert memory([1.0] * 9, 1.0) == 0.0


def _metric(name: str, better: str) -> Metric:
    return Metric(name=name, help="a test", better=better)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "better", "values", "kind"),
    [
        ("storage_read_bytes_per_second", "higher", (1e9,), ScaleKind.RATIO),
        ("starvation_ratio", "lower", (0.0, 0.02), ScaleKind.POINTS),
        ("accelerator_busy_ratio", "higher", (0.9,), ScaleKind.RATIO),
        ("network_retransmits", "lower", (0.0, 3.0), ScaleKind.EVENTS),
    ],
)
def test_each_metric_has_its_scale(name: str, better: str, values: Sequence[float], kind: ScaleKind) -> None:
    assert scale_of(_metric(name, better), values).kind is kind


def test_starvation_near_zero_is_compared_in_points() -> None:
    scale = scale_of(_metric("starvation_ratio", "lower"), [0.0])
    track = Track(Policy(), scale)
    for value in (0.001, 0.0, 0.002, 0.001, 0.0015, 0.0, 0.001, 0.002, 0.001):
        track.enter(Night(scale.of(value)))
    assert track.judge(Night(scale.of(0.006))).state is SeriesState.OK  # six times nearly nothing
    call = track.judge(Night(scale.of(0.12)))
    assert call.state is SeriesState.SUSPECT
    assert call.centre is not None and call.drop is not None
    assert scale.ratio(call.centre, call.drop) == pytest.approx(0.119, abs=0.001)


def test_a_few_retransmits_are_noise_and_hundreds_are_not() -> None:
    scale = scale_of(_metric("network_retransmits", "lower"), [0.0])
    track = Track(Policy(), scale)
    for value in (0, 2, 1, 0, 3, 1, 0, 2, 1, 1):
        track.enter(Night(scale.of(value)))
    assert track.judge(Night(scale.of(5))).state is SeriesState.OK
    assert track.judge(Night(scale.of(300))).state is SeriesState.SUSPECT


def test_no_throughput_at_all_is_bad_and_not_missing() -> None:
    call = _track().judge(Night(UP.of(0.0)))
    assert call.state is SeriesState.SUSPECT
    assert call.centre is not None and call.drop is not None
    assert UP.ratio(call.centre, call.drop) == pytest.approx(1.0)


@given(st.floats(1e-6, 1e12), st.floats(0.01, 0.9), st.sampled_from([UP, DOWN]))
def test_a_scale_goes_there_and_back(value: float, drop: float, scale: Scale) -> None:
    assert scale.back(scale.of(value)) == pytest.approx(value, rel=1e-9)
    effect = scale.effect(drop, scale.of(value))
    assert scale.ratio(scale.of(value), effect) == pytest.approx(drop, rel=1e-6)


@given(
    st.lists(st.floats(0.5, 2.0), min_size=8, max_size=40),
    st.lists(st.floats(0.2, 2.0), min_size=3, max_size=3),
    *(st.floats(0.5, 1.0), st.sampled_from([0, 1, 2])),
)
def test_worse_is_never_judged_better(nights: list[float], tonight: list[float], factor: float, at: int) -> None:
    """Making one measurement worse never makes its word milder (`undetectable` stands beside `ok`)."""
    order = {
        SeriesState.OK: 0,
        SeriesState.UNDETECTABLE: 0,
        SeriesState.WARMING: 0,
        SeriesState.SUSPECT: 1,
        SeriesState.REGRESSED: 2,
    }
    track = Track(Policy(), UP)
    for value in nights:
        track.enter(Night(UP.of(value)))
    worse = [value * factor if each == at else value for each, value in enumerate(tonight)]
    for times in (1, 2, 3):
        before, after = (track.judge(_measured(one[:times])) for one in (tonight, worse))
        assert order[after.state] >= order[before.state]


def test_an_outlier_that_ends_a_shift_is_no_milder_than_a_smaller_one() -> None:
    """Was suspect at .109, after .21875 in its place was regressed."""
    track = Track(Policy(), UP)
    for value in (1.0, 1.0, 1.25, 0.875, 0.875, 1.5, 0.875, 0.5):
        track.enter(Night(UP.of(value)))
    mild, worse = (track.judge(Night(UP.of(value))).state for value in (0.21875, 0.109375))
    assert SEVERITY.index(worse) >= SEVERITY.index(mild)
