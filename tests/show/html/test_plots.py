"""Where a mark stands: axes that hold what they were made for, and time lines of known runs."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bench.model import Series
from bench.show.html.plots import Chart, Panels, axis, latency, spanned, timelines
from bench.show.html.plots.timelines import MetricHistory
from tests.show.runs import recorded

METRIC = "storage_read_bytes_per_second"
positive = st.floats(1e-9, 1e15)


@given(st.lists(positive, min_size=1, max_size=20), st.booleans(), st.integers(2, 6))
def test_an_axis_holds_its_values_in_order_with_few_ticks(values: list[float], log: bool, most: int) -> None:
    found = axis(values, METRIC, most, log=log)
    places = [found.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0.0 <= place <= 100.0 for place in places)
    ticks = [place for place, _ in found.ticks]
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= most


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_any_span_has_at_least_one_round_tick(low: float, width: float) -> None:
    high = low + width
    if high > low:
        assert spanned(low, high, METRIC, 4).ticks


def test_half_is_in_the_middle_and_a_decade_is_a_decade() -> None:
    assert axis([2.0], METRIC).at(1.0) == 50.0
    assert axis([1e-6, 1e-2], "network_round_trip_seconds", log=True).at(1e-4) == 50.0


def test_the_turns_of_the_probes_lie_on_the_clock_of_the_watchers() -> None:
    picture = timelines.one_clock(recorded("feed"))
    assert picture is not None
    assert isinstance(picture.body, Panels)
    assert [text for *_, text in picture.body.turns] == ["1 storage, 0 to 26 s", "2 network, 28 to 37 s",
                                                         "3 feed, 40 to 61 s"]  # fmt: skip
    assert [panel.name for panel in picture.body.panels] == ["storage", "network", "memory available"]
    turns = [(first, last) for first, last, *_ in picture.body.turns]
    assert all(before[1] <= after[0] for before, after in pairwise(turns))


def test_a_long_time_line_keeps_its_dip() -> None:
    values = tuple(0.0 if 3000 <= n < 3030 else 1.0 for n in range(6000))
    seconds, thin = timelines.thinned(Series(metric=METRIC, seconds=tuple(map(float, range(6000))), values=values))
    assert len(seconds) == len(thin) <= 240
    assert min(thin) == 0.0


def test_the_parts_of_the_budget_are_one_bar_that_adds_up() -> None:
    picture = latency.budget(recorded("h200"))
    assert picture is not None
    assert isinstance(picture.body, Chart)
    (row,) = picture.body.rows
    _, *parts = row.marks
    assert [a.to for a in parts[:-1]] == [b.at for b in parts[1:]], "one after another"
    assert row.text == "78 ms of 200 ms"
    assert "122 ms are left" in picture.said
    assert picture.body.limit == 100.0


def test_a_night_beyond_the_band_is_told_and_one_within_is_not() -> None:
    nights = MetricHistory("read", METRIC, (1.0e9, 1.02e9, 0.9e9), 1.01e9, 0.95e9, 0.9e9, 0.8e9)
    latency_nights = MetricHistory("latency", "storage_read_latency_seconds", (1e-3, 2e-3), 1e-3, 1.5e-3, 2e-3, 1e-2)
    good = MetricHistory("write", METRIC, (1.0e9, 1.02e9), 1.01e9, 0.95e9, 0.9e9, None)
    picture = timelines.histories([nights, latency_nights, good])
    assert picture is not None
    assert "read and latency are worse than expected" in picture.said
    calm = timelines.histories([good])
    assert calm is not None
    assert calm.said == "Where a night is expected: 1 of 1 metric."
