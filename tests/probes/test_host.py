"""The host watcher: exact arithmetic on samples of its own making, and that the real counters can be read here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.measure import procfs
from bench.measure.probe import Failed
from bench.measure.watchers import from_lines, to_lines
from bench.model import Measurement
from probes import host
from probes.common.windows import stages


def sample(t: float, event: str = "tick", stage: str = "feed", **fields: Any) -> dict[str, Any]:
    return {"t": t, "event": event, "stage": stage, **fields}


def cpu(busy: float, idle: float, wait: float = 0.0, steal: float = 0.0) -> dict[str, float]:
    return {"user": busy, "system": 0.0, "idle": idle, "iowait": wait, "steal": steal, "guest": busy}


def parsed(samples: list[dict[str, Any]]) -> list[Measurement]:
    context: Any = SimpleNamespace(series=[], warn=print)
    return list(host.parse(from_lines(to_lines(samples)), context))


def value(found: list[Measurement], metric: str, **labels: str) -> float:
    matching = [m.value for m in found if m.metric == metric and labels.items() <= m.labels.items()]
    assert len(matching) == 1
    return matching[0]


def test_counters_are_differences_over_exactly_the_stage() -> None:
    found = parsed([
        sample(0.0, "tick", "idle", disk_read=0, cpu=cpu(0, 0)),
        sample(1.0, "begin", disk_read=1_000, cpu=cpu(10, 10), psi={"io": {"some": 500_000}}, memory_available=9),
        sample(2.0, "tick", disk_read=2_000, memory_available=5),
        sample(3.0, "end", disk_read=5_000, cpu=cpu(13, 10.6, 0.3, 0.1), psi={"io": {"some": 900_000}},
               memory_available=8),
        sample(4.0, "tick", "idle", disk_read=99_000, memory_available=1),
    ])  # fmt: skip
    assert value(found, "host_disk_read_bytes_per_second") == 2_000.0
    assert value(found, "host_cpu_busy_ratio") == pytest.approx(3.1 / 4.0)  # guest time is not counted twice
    assert value(found, "host_cpu_steal_ratio") == pytest.approx(0.1 / 4.0)
    assert value(found, "host_cpu_wait_ratio") == pytest.approx(0.3 / 4.0)
    assert value(found, "host_pressure_ratio", resource="io", kind="some") == pytest.approx(0.2)
    assert value(found, "host_memory_available_bytes") == 5.0
    assert {m.labels["stage"] for m in found} == {"feed"}


def test_a_stage_in_several_parts_is_one_and_stages_nest() -> None:
    found = parsed([
        sample(0.0, "begin", "feed", net_send=0), sample(1.0, "begin", "feed.cold", net_send=100),
        sample(2.0, "end", "feed.cold", net_send=300), sample(5.0, "begin", "feed.cold", net_send=1_000),
        sample(7.0, "end", "feed.cold", net_send=1_400), sample(10.0, "end", "feed", net_send=1_400),
    ])  # fmt: skip
    assert value(found, "host_network_send_bytes_per_second", stage="feed") == 140.0
    assert value(found, "host_network_send_bytes_per_second", stage="feed.cold") == pytest.approx(600 / 3)


def test_the_flows_of_each_turn_lie_on_one_clock() -> None:
    """400 B/s for two seconds, then 100: once a second, whatever stage's end is sampled in between; none of a turn's
    stages stands beside it, and no line spans the pause between two turns."""
    context: Any = SimpleNamespace(series=[], warn=print)
    host.parse([
        sample(10.0, "begin", "feed", disk_read=0), sample(10.3, "begin", "feed.cold", disk_read=1),
        sample(11.0, "tick", "feed.cold", disk_read=400), sample(11.5, "end", "feed.cold", disk_read=401),
        sample(12.0, "tick", "feed", disk_read=800), sample(13.0, "end", "feed", disk_read=900),
        sample(20.0, "begin", "feed", disk_read=5000), sample(21.0, "end", "feed", disk_read=5000),
    ], context)  # fmt: skip
    assert [(s.metric, s.labels, s.seconds, s.values) for s in context.series] == [
        ("host_disk_read_bytes_per_second", {"stage": "feed"}, (10, 11, 12, 13), (400, 400, 400, 100)),
        ("host_disk_read_bytes_per_second", {"stage": "feed"}, (20, 21), (0, 0)),
    ]


def test_what_the_kernel_does_not_say_is_absent_and_not_zero() -> None:
    found = parsed([sample(0.0, "begin", memory_available=7), sample(1.0, "end", memory_available=7, disk_read=None)])
    assert {m.metric for m in found} == {"host_memory_available_bytes"}


def test_a_counter_that_went_backwards_is_no_rate() -> None:
    ends = [sample(0.0, "begin", disk_read=100, running=1), sample(1.0, "end", disk_read=5, running=2)]
    assert {m.metric for m in parsed(ends)} == {"host_runnable_tasks"}


def test_a_stage_without_an_end_is_left_out() -> None:
    assert stages([sample(0.0, "begin"), sample(5.0)]) == []
    with pytest.raises(Failed, match="no_stage"):
        parsed([sample(0.0, "begin"), sample(5.0)])


def test_pressure_as_the_kernel_prints_it() -> None:
    text = "some avg10=2.76 avg60=1.42 avg300=0.45 total=8076252\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=17\n"
    assert procfs.stall_totals(text) == {"some": 8076252, "full": 17}


def test_the_counters_of_this_machine_can_be_read_and_only_grow() -> None:
    watch = host.HostWatch()
    first, second = watch.sample("begin"), watch.sample("end")
    watch.close()
    assert sum(second["cpu"].values()) >= sum(first["cpu"].values()) > 0
    assert first["memory_available"] > 0
    assert from_lines(to_lines([first])) == [first]
