"""Rows of the paced echo, made by hand: where each packet's time went, what is one event, what may not decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.probe import Failed
from bench.model import Measurement
from probes.network import echo_parse as _echo
from probes.network.echo_parse import THRESHOLDS, idle_or_loaded, quantiles

MS = 1_000_000
Row = list[Any]


def row(late: float = 0, network: float = 1, egress: float = 0, host: float = 0.1, peer: float = 0.2) -> Row:
    """Milliseconds to the program's nanoseconds: late, app, send, egress, trip, peer, receive."""
    trip = network + egress + peer
    values = (late, host + trip, host / 2, egress, trip, peer, host / 2)
    return [round(value * MS) for value in values]


LOST: Row = [0]


def text(rows: Sequence[Row], interval: float = 20, seen: int | None = None, **head: Any) -> str:
    back = sum(len(one) > 1 for one in rows)
    first = {
        "kind": "echo", "count": len(rows), "interval": round(interval * MS),
        "peer_seen": back if seen is None else seen, "reordered": 0,
        "duplicates": 0, "seconds": 10.0, "clock_step": 0, "pressure_ratio": 0.0, **head,
    }  # fmt: skip
    return json.dumps(first) + "\n" + json.dumps({"kind": "packets", "rows": list(rows)}) + "\n"


def parse(rows: Sequence[Row], interval: float = 20, **head: Any) -> _echo.Echo:
    return _echo.parse(text(rows, interval, **head))


def events(rows: Sequence[Row], threshold: float = 0.05, interval: float = 20) -> list[tuple[str, int, int]]:
    echo = parse(rows, interval)
    return [(e.place, e.first, e.last) for e in _echo.events(echo, _echo.usual_times(echo), threshold)]


def test_a_packets_time_is_divided_without_rest() -> None:
    (packet,) = parse([row(late=3, network=5, egress=2, host=1, peer=4)]).packets
    assert packet is not None
    assert packet.round_trip == pytest.approx(0.007), "a full queue counts, wherever it stands"
    assert (packet.network, packet.egress, packet.peer) == pytest.approx((0.005, 0.002, 0.004))
    assert packet.host == pytest.approx(0.004), "being late is the host's"
    assert packet.network + packet.egress + packet.peer + packet.host == pytest.approx(packet.application)


@pytest.mark.parametrize("place", ["network", "egress", "host", "peer"])
def test_a_spike_is_laid_at_its_place(place: str) -> None:
    rows = [row() for _ in range(100)]
    rows[50] = row(**{place: 100.0})
    assert events(rows) == [(place, 50, 50)]


def test_a_late_sender_is_the_host() -> None:
    rows = [row() for _ in range(100)]
    rows[50:55] = [row(late=100 - 20 * n) for n in range(5)]
    assert events(rows) == [("host", 50, 52)]


def test_a_stall_with_what_waited_behind_it_is_one_event() -> None:
    rows = [row() for _ in range(200)]
    for start in (20, 100):
        for n in range(15):
            rows[start + n] = row(network=300 - 20 * n)
    assert events(rows, 0.05) == [("network", 20, 32), ("network", 100, 112)]
    assert events(rows, 0.25) == [("network", 20, 22), ("network", 100, 102)]


def test_flicker_at_the_threshold_does_not_double_an_event() -> None:
    rows = [row() for _ in range(60)]
    for n, delay in enumerate((80, 40, 60, 40, 40, 60, 40, 40, 40, 40, 60)):
        rows[20 + n] = row(network=delay)
    assert events(rows) == [("network", 20, 25), ("network", 30, 30)]


def test_a_lost_packet_neither_makes_nor_ends_an_event() -> None:
    rows = [row() for _ in range(60)]
    rows[20], rows[21:27], rows[27] = row(network=90), [LOST] * 6, row(network=80)
    rows[40] = LOST
    assert events(rows) == [("network", 20, 27)]


def test_a_stall_of_the_host_does_not_hide_the_networks() -> None:
    rows = [row() for _ in range(60)]
    rows[20:24] = [row(late=200), row(late=180), row(late=160, network=120), row(late=140, network=100)]
    assert sorted(events(rows)) == [("host", 20, 23), ("network", 22, 23)]


def test_what_only_the_sum_breaks_is_laid_at_the_largest_part() -> None:
    rows = [row() for _ in range(60)]
    rows[20] = row(network=31, peer=25)
    assert events(rows) == [("network", 20, 20)]


def test_events_are_merged_by_time_not_by_count() -> None:
    rows = [row() for _ in range(200)]
    rows[50], rows[70], rows[110] = row(network=90), row(network=90), row(network=90)
    assert events(rows, interval=2) == [("network", 50, 70), ("network", 110, 110)]
    assert len(events(rows, interval=20)) == 3


def test_usual_jitter_is_no_spike() -> None:
    rows = [row(network=10 + (n * 7919 % 100) / 10) for n in range(500)]
    assert events(rows, 0.02) == []


@given(st.lists(st.sampled_from([1.0, 30.0, 90.0, None]), min_size=1, max_size=80))
def test_events_are_ordered_disjoint_and_never_more_than_the_late_packets(delays: list[float | None]) -> None:
    rows = [LOST if delay is None else row(network=delay) for delay in delays] + [row()] * 100
    echo = parse(rows)
    for threshold in THRESHOLDS:
        found = _echo.events(echo, {"network": 0.001}, threshold)
        assert all(e.first <= e.last for e in found)
        assert all(a.last < b.first for a, b in pairwise(found))
        late = sum(delay is not None and delay / 1e3 - 0.001 > threshold for delay in delays)
        assert len(found) <= late
        assert (late > 0) == (len(found) > 0)


# --- loss, order, lateness


def idle(rows: Sequence[Row], **head: Any) -> dict[tuple[str, str], float]:
    """The figures by metric and statistic or direction."""
    echo = parse(rows, **head)
    found = idle_or_loaded([echo], _echo.usual_times(echo), {})
    return {(m.metric, m.labels.get("statistic") or m.labels.get("direction", "")): m.value for m in found}


def test_loss_is_told_apart_by_direction() -> None:
    found = idle([row(), LOST, LOST, row(), LOST, row()], seen=4)
    lost = [found["network_echo_loss_ratio", way] for way in ("send", "receive")]
    assert lost == pytest.approx([2 / 6, 1 / 6])
    assert found["network_lost_burst_packets", ""] == 2


def test_missed_slots_are_those_sent_after_the_next_was_due() -> None:
    found = idle([row(), row(late=19), row(late=21), row(late=300)])
    assert found["network_missed_send_slots", ""] == 2


def test_variation_is_from_the_least() -> None:
    found = idle([row(network=5), row(network=3), row(network=9)] * 3)
    varied = [found["network_delay_variation_seconds", statistic] for statistic in ("p50", "max")]
    assert varied == pytest.approx([0.002, 0.006])


# --- what must not decide


def doubt(rows: Sequence[Row], **head: Any) -> str:
    return (parse(rows, **head).doubt or "").partition(":")[0]


def test_a_quiet_host_leaves_no_doubt() -> None:
    assert doubt([row()] * 100) == ""
    assert doubt([row()] * 100, pressure_ratio=0.99) == "", "pressure alone does not move the kernel's stamps"
    assert doubt([row()] * 100, pressure_ratio=None) == ""


def test_doubts() -> None:
    assert doubt([row()] * 98 + [row(late=25)] * 2) == "host_contended"
    assert doubt([row()] * 98 + [row(late=6)] * 2, pressure_ratio=0.95) == "host_contended"
    assert doubt([row()] * 100, clock_step=50 * MS) == "clock_set"
    unstamped: Row = [0, 2 * MS, None, None, None, 1 * MS, None]
    assert doubt([row()] * 95 + [unstamped] * 5) == "stamps_missing"


def test_without_stamps_it_is_the_applications_figure_and_says_so() -> None:
    echo = parse([[0, 2 * MS, None, None, None, None, None]] * 20)
    assert not echo.stamped and echo.doubt is None
    found = idle_or_loaded([echo], _echo.usual_times(echo), {"peer": "p", "state": "idle"})
    trips = [m for m in found if m.metric == "network_round_trip_seconds"]
    assert trips and all(m.labels["stamps"] == "application" and m.value == 0.002 for m in trips)
    assert not [m for m in found if m.metric == "network_place_delay_seconds"]


def test_a_packet_with_impossible_stamps_is_left_out() -> None:
    """The peer's clock was set: its part is longer than the whole."""
    impossible: Row = [0, 3 * MS, 1, 1, 2 * MS, 90_000 * MS, 1]
    echo = parse([row()] * 199 + [impossible])
    assert len(echo.times("round_trip")) == 199
    assert max(echo.times("round_trip")) == pytest.approx(0.001)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: "",
        lambda t: t.partition("\n")[0],
        lambda t: t[: len(t) // 2],
        lambda t: t + "garbage\n",
        lambda t: "[" * 9999,
        lambda t: "null\n",
    ],
)
def test_damaged_output_is_refused(spoil: Callable[[str], str]) -> None:
    with pytest.raises(Failed, match=r"^tool_output: "):
        _echo.parse(spoil(text([row()] * 300)))


def test_silence_is_a_failure_not_a_loss_of_one() -> None:
    with pytest.raises(Failed, match=r"^peer_silent: "):
        parse([LOST] * 10)


# --- figures


def named(found: Sequence[Measurement], metric: str, **labels: str) -> list[Measurement]:
    return [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]


def test_the_state_loaded_is_its_worst_direction_with_all_of_the_events() -> None:
    calm = parse([row()] * 200)
    spiked = [row(network=4)] * 200
    spiked[100] = row(network=150)
    busy = parse(spiked)
    found = idle_or_loaded([calm, busy], _echo.usual_times(calm), {"state": "loaded"})
    (p50,) = named(found, "network_round_trip_seconds", statistic="p50")
    assert p50.value == pytest.approx(0.004)
    for threshold in ("0.02", "0.05", "0.1"):
        (events_,) = named(found, "network_spike_events", place="network", threshold_seconds=threshold)
        assert events_.value == 1
    (bound,) = named(found, "network_spike_rate_upper_bound_per_second")
    assert bound.value == pytest.approx(4.744 / 8.0, rel=1e-3), "Poisson: 4.744 for one event; 8 s were watched"


def test_no_event_in_a_minute_bounds_the_rate_at_three_a_minute() -> None:
    echo = parse([row()] * 3000)
    found = idle_or_loaded([echo], _echo.usual_times(echo), {"state": "idle"})
    (bound,) = named(found, "network_spike_rate_upper_bound_per_second")
    assert bound.value * 60 == pytest.approx(2.996, rel=1e-3)


def test_a_doubt_is_on_every_figure_that_could_decide() -> None:
    echo = parse([row(late=30, network=60)] * 50)
    found = idle_or_loaded([echo], {}, {"state": "idle"})
    for metric in ("network_round_trip_seconds", "network_delay_variation_seconds"):
        assert all((m.invalid or "").startswith("host_contended") for m in named(found, metric))
    assert named(found, "network_spike_events", place="network")[0].invalid


@pytest.mark.parametrize(
    ("packets", "stated"),
    [
        (5, ["max"]),
        (6, ["p50", "max"]),
        (300, ["p50", "max"]),
        (368, ["p50", "p99", "max"]),
        (3687, ["p50", "p99", "max"]),
        (3688, ["p50", "p99", "p99.9", "max"]),
    ],
)
def test_a_quantile_is_stated_where_its_interval_can_hold_it(packets: int, stated: list[str]) -> None:
    """Of 300 packets p99.9 was shown with an interval of 95 % that holds it in one case of four."""
    found = quantiles("network_round_trip_seconds", [0.001] * packets, {})
    assert [m.labels["statistic"] for m in found] == stated


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300))
def test_quantiles_hold_their_values_and_grow(values: list[float]) -> None:
    found = quantiles("network_round_trip_seconds", values, {})
    assert found[-1].value == max(values)
    assert [m.value for m in found] == sorted(m.value for m in found)
