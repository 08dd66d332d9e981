"""Nothing vanishes by itself: what opens no epoch, what a new one is held against, and what is missed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.judge.baseline.series import History, Key, key_of
from bench.measure.node import fingerprint
from bench.model import Run
from bench.store.history import Series, history_of
from bench.store.index import Index
from bench.workflows.catalog import declared
from tests.judge.baseline.make import READ, SEQUENTIAL, START, Nights, document, measurement, store
from tests.judge.baseline.test_gate import Bench

THROUGHPUT = "network_throughput_bytes_per_second"
DRAIN = "accelerator_drain_reasons"
THROTTLE = "accelerator_throttle_ratio"
SAMPLES = "inference_samples_per_second"
FACTS: dict[str, Any] = {
    "kernel": "6.1.0",
    "gpus": ["H100"] * 8,
    "nvidia_driver": "550.54",
    "versions": {"fio": "fio-3.33", "iperf3": "iperf 3.12", "bench": "1.0.0"},
    "mounts": {"/data": {"point": "/data", "source": "nas:/export", "fstype": "nfs4", "device": "0:45", "options": ""}},
}
REQUEST: dict[str, Any] = {
    "effort": "standard", "probes": ["storage", "network", "feed", "gpu"], "storage": ["/data"],
    "peers": ["10.0.0.2"], "accelerator": "auto", "options": {},
}  # fmt: skip
SEND, RECEIVE = ({"peer": "10.0.0.2", "direction": way} for way in ("send", "receive"))
HEAT = {"stage": "feed", "reason": "hw_thermal_slowdown", "method": "counter"}
CALLED = {READ: "storage", THROUGHPUT: "network", SAMPLES: "feed", DRAIN: "drain", THROTTLE: "throttle"}
COMPARED = {READ, THROUGHPUT, SAMPLES, THROTTLE}
FEED = {"stage": "storage", "path": "/data"}
GATE = """
name = "nightly"
[[gate]]
metric = "{metric}"
{bound}
source = "a test"
"""


class Node:
    """A node of eight GPUs with one storage path and one peer. ``night`` stores one; each figure is a factor."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.number, self._random = bench, 0, random.Random(1)
        gates = [(metric, "min = 1.0") for metric in (READ, THROUGHPUT, SAMPLES)]
        gates += [(THROTTLE, "max = 0.5"), (DRAIN, "max = 0")]
        first, *others = (GATE.format(metric=metric, bound=bound) for metric, bound in gates)
        bench.profile.write_text(first + "".join(gate.partition('"nightly"')[2] for gate in others))

    def figure(self, metric: str, value: float, labels: Mapping[str, str]) -> dict[str, Any]:
        return measurement(metric, value * self._random.uniform(0.99, 1.01), labels)

    def night(
        self, *, read: float = 1.0, tcp: float = 1.0, feed: float = 1.0, gpus: Sequence[int] = range(8),
        ways: Sequence[Mapping[str, str]] = (SEND, RECEIVE), found: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None, request: Mapping[str, Any] | None = None, at: datetime | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """``found``: labels that tell what was found of the throughput."""
        made = {
            "storage": [self.figure(READ, 1e9 * read, SEQUENTIAL)],
            "network": [self.figure(THROUGHPUT, 11e9 * tcp, {**way, **(found or {})}) for way in ways],
            "feed": [self.figure(SAMPLES, 1e3 * feed, FEED)],
            "gpu": [
                measurement(metric, 0.0, {"device": str(gpu), **labels})
                for gpu in gpus
                for metric, labels in ((THROTTLE, HEAT), (DRAIN, {"reasons": "none", "checked": "lost,xid"}))
            ],
        }
        asked = {**REQUEST, **(request or {})}
        results = [
            {"probe": probe, "outcome": "ok", "measurements": figures}
            for probe, figures in made.items()
            if probe in asked["probes"] and figures
        ]
        known = {**FACTS, **(facts or {})}
        node = {"hostname": "node01", "fingerprint": fingerprint(known), "facts": known}
        at = at or START + timedelta(days=self.number)
        run = document(self.number, [], at=at, node=node, request=asked, results=results)
        self.number += 1
        store(self.bench.root, run)
        return run

    def nights(self, count: int, **told: Any) -> None:
        for _ in range(count):
            self.night(**told)

    def entries(self, run: dict[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
        """The decision, and the entry of each series by its metric and what tells it from the others of it."""
        _, out = self.bench("gate", run["id"], "--baseline", "--json")
        found = json.loads(out)
        names = {}
        for entry in found["regressions"]:
            labels = entry["labels"]
            which = labels.get("direction") or labels.get("device") or labels.get("path")
            names[f"{CALLED[entry['metric']]} {which}"] = entry
        return found["verdicts"][0]["decision"], names


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(Bench(tmp_path))


# --- what a series is


def test_what_was_found_is_no_part_of_a_series(node: Node) -> None:
    """30 nights at 11 GB/s limited by the CPU, then 6.5 GB/s that are not: was warming 0/7, and GO."""
    node.nights(30, found={"limited_by": "cpu", "congestion": "cubic"})
    decision, found = node.entries(node.night(tcp=6.5 / 11.0))
    assert (decision, found["network send"]["status"]) == ("INCONCLUSIVE", "suspect")
    assert found["network send"]["drop_ratio"] == pytest.approx(0.41, abs=0.02)


def test_a_card_of_which_less_can_be_read_is_still_that_card(node: Node) -> None:
    """Throttling by samples, where it was by counters before: was another series, without a past."""
    node.nights(10)
    run = node.night()
    for entry in run["results"][-1]["measurements"]:
        entry["labels"] |= {"method": "polled"} if entry["metric"] == THROTTLE else {"checked": "lost"}
    store(node.bench.root, run)
    decision, found = node.entries(run)
    assert (decision, found["throttle 0"]["nights"], found["throttle 0"]["status"]) == ("GO", 10, "ok")


# --- what opens an epoch, and of what


@pytest.mark.parametrize(
    ("facts", "request_", "warming"),
    [
        ({"mounts": {"/data": {**FACTS["mounts"]["/data"], "device": "0:52"}}}, {}, set()),
        ({}, {"storage": ["/data", "/scratch"]}, set()),
        ({}, {"peers": ["10.0.0.2", "10.0.0.3"]}, set()),
        ({"nvidia_driver": "560.1"}, {}, {SAMPLES, THROTTLE}),
        ({"mounts": {"/data": {"source": "other:/export", "fstype": "nfs4", "device": "0:45"}}}, {}, {READ, SAMPLES}),
        ({"versions": {**FACTS["versions"], "fio": "fio-3.36"}}, {}, {READ}),
        ({"versions": {**FACTS["versions"], "iperf3": "iperf 3.18"}}, {}, {THROUGHPUT}),
        ({"kernel": "6.1.9"}, {}, COMPARED),
        ({}, {"accelerator": "cuda"}, {SAMPLES, THROTTLE}),
        ({}, {"options": {"workload": "unet3d"}}, {SAMPLES}),
        ({}, {"options": {"pattern": "batch"}}, set()),  # what it is by default
        ({}, {"options": {"max_rate": "500M"}}, {THROUGHPUT}),
        ({}, {"options": {"quiet_check": "off"}}, set()),
        ({}, {"effort": "quick"}, COMPARED),
    ],
)
def test_a_change_touches_the_series_that_it_concerns(
    node: Node, facts: dict[str, Any], request_: dict[str, Any], warming: set[str]
) -> None:
    """A remount, a second path or peer, a driver: every series of the node warmed up anew. A workload: none did."""
    node.nights(10)
    entries = node.entries(node.night(facts=facts, request=request_))[1].values()
    found = [entry for entry in entries if entry["metric"] in COMPARED]
    assert {entry["metric"] for entry in found if entry["status"] == "warming"} == warming
    assert {entry["metric"] for entry in found if entry["nights"] == 10} == COMPARED - warming


def test_facts_that_an_older_version_did_not_keep_are_no_change(node: Node) -> None:
    node.nights(10, facts={"mounts": None, "nvidia_driver": None, "versions": {"fio": "fio-3.33"}})
    assert {entry["nights"] for entry in node.entries(node.night())[1].values()} == {10}


# --- a new epoch is held against the one before


def test_a_drop_with_a_new_kernel_is_told_until_the_epoch_is_warm(node: Node) -> None:
    """-41 % on the night of a kernel update: was warming 0/7, and GO."""
    node.nights(30)
    after: dict[str, Any] = {"facts": {"kernel": "6.1.9"}, "tcp": 0.59}
    for night in range(7):
        decision, found = node.entries(node.night(**after))
        assert (decision, found["network send"]["status"]) == ("INCONCLUSIVE", "suspect")
        reason = found["network send"]["reason"]
        assert "worse than the 30 nights before kernel: 6.1.0 -> 6.1.9" in reason
        assert reason.endswith(f"{night}/7 nights since")
        assert found["storage /data"]["status"] == "warming"
    decision, found = node.entries(node.night(**after))
    assert (decision, found["network send"]["status"], found["network send"]["nights"]) == ("GO", "ok", 7)


def test_a_reset_ends_it_at_once(node: Node) -> None:
    node.nights(30)
    node.night(facts={"kernel": "6.1.9"}, tcp=0.59)
    assert node.bench("baseline", "reset", "--reason", "the kernel is slower", profile=False)[0] == 0
    decision, found = node.entries(node.night(facts={"kernel": "6.1.9"}, tcp=0.59))
    assert (decision, found["network send"]["status"]) == ("GO", "warming")


def test_a_second_good_measurement_clears_it(node: Node) -> None:
    node.nights(30)
    first = node.night(facts={"kernel": "6.1.9"}, tcp=0.59)
    again = START + timedelta(days=30, minutes=10)
    node.night(facts={"kernel": "6.1.9"}, at=again, request={"options": {"confirms": first["id"]}})
    assert node.entries(first)[1]["network send"]["status"] == "warming"


def test_a_change_does_not_heal_a_regression(node: Node) -> None:
    """Regressed, then a new kernel: after seven nights it was normal. It is told until there is a good night."""
    node.nights(30)
    node.nights(3, tcp=0.59)
    node.nights(9, facts={"kernel": "6.1.9"}, tcp=0.59)
    decision, found = node.entries(node.night(facts={"kernel": "6.1.9"}, tcp=0.59))
    assert (decision, found["network send"]["status"]) == ("INCONCLUSIVE", "suspect")
    assert "regressed then and not mended" in found["network send"]["reason"]
    assert node.entries(node.night(facts={"kernel": "6.1.9"}))[0] == "GO"


def test_nor_does_a_second_change(node: Node) -> None:
    """A regression that outlived a kernel by twenty nights was what is normal for the next one: GO."""
    node.nights(30)
    node.nights(3, tcp=0.59)
    node.nights(20, facts={"kernel": "6.1.9"}, tcp=0.59)
    decision, found = node.entries(node.night(facts={"kernel": "6.1.10"}, tcp=0.59))
    assert (decision, found["network send"]["status"]) == ("INCONCLUSIVE", "suspect")
    assert "worse than the 30 nights before kernel: 6.1.9 -> 6.1.10, regressed then" in found["network send"]["reason"]
    assert node.entries(node.night(facts={"kernel": "6.1.10"}))[0] == "GO"


def test_a_change_that_was_learnt_stays_so_at_the_next(node: Node) -> None:
    """A sound node that a kernel made slower is not held against the nights before that kernel for ever."""
    node.nights(30)
    node.nights(20, facts={"kernel": "6.1.9"}, tcp=0.8)
    assert node.entries(node.night(facts={"kernel": "6.1.10"}, tcp=0.8))[0] == "GO"


def test_many_short_epochs_are_compared_with_together(node: Node) -> None:
    """A kernel each five nights never warmed up, and was never compared with anything."""
    for number in range(4):
        node.nights(5, facts={"kernel": f"6.1.{number}"})
    assert node.entries(node.night(facts={"kernel": "6.1.5"}, read=0.5))[1]["storage /data"]["status"] == "suspect"


# --- what is missing


def test_a_card_that_is_lost_is_missing_though_the_facts_changed(node: Node) -> None:
    """Seven of eight devices after a reboot: was GO, every series warming."""
    node.nights(10)
    without: dict[str, Any] = {"gpus": range(7), "facts": {"gpus": ["H100"] * 7, "kernel": "6.1.9"}}
    run = node.night(**without)
    decision, found = node.entries(run)
    lost = found["throttle 7"]
    assert (decision, lost["status"], lost["observed"], lost["drop_ratio"]) == ("INCONCLUSIVE", "missing", None, None)
    assert (lost["nights"], lost["labels"], lost["gating"]) == (
        7,
        {"device": "7", "stage": "feed", "reason": "hw_thermal_slowdown"},
        True,
    )
    assert found["drain 7"]["status"] == "missing"  # of a limit of 0 too, which no night is compared with
    assert lost["reason"] == "missing: measured on 7 of 7 nights, not tonight"
    status, out = node.bench("gate", run["id"], "--baseline")
    assert status == 3 and "missing      accelerator_drain_reasons{device=7}, expected 0" in out
    node.nights(20, **without)
    assert node.entries(node.night(**without))[0] == "INCONCLUSIVE"  # it is not forgotten either
    assert node.entries(node.night(facts={"kernel": "6.1.9"}))[0] == "GO"


def test_one_direction_alone_does_not_pass(node: Node) -> None:
    """``direction=send`` alone was GO."""
    node.nights(10)
    run = node.night(ways=[SEND])
    decision, found = node.entries(run)
    assert (decision, found["network receive"]["status"]) == ("INCONCLUSIVE", "missing")


def test_what_is_there_now_and_then_is_not_missed(node: Node) -> None:
    for night in range(14):
        node.night(ways=[SEND] if night % 2 else [SEND, RECEIVE])
    assert node.entries(node.night(ways=[SEND]))[0] == "GO"


@pytest.mark.parametrize(
    "request_",
    [
        {"probes": ["storage", "feed", "gpu"]},
        {"probes": ["storage", "feed", "gpu"], "peers": []},
        {"peers": ["10.0.0.9"]},
        {"effort": "quick"},
    ],
)
def test_what_was_not_asked_for_is_not_missed(node: Node, request_: dict[str, Any]) -> None:
    node.nights(10)
    found = node.entries(node.night(ways=[], request=request_))[1]
    assert [name for name, entry in found.items() if entry["status"] == "missing"] == []


def test_a_second_measurement_of_some_probes_misses_nothing(node: Node) -> None:
    node.nights(10)
    first = node.night()
    request = {"probes": ["storage"], "options": {"confirms": first["id"]}}
    second = node.night(request=request, at=START + timedelta(days=10, minutes=9))
    assert set(node.entries(second)[1]) == {"storage /data"}
    assert node.entries(node.night(at=START + timedelta(days=11)))[1]["network send"]["nights"] == 11


def test_a_reset_ends_what_is_missing(node: Node) -> None:
    node.nights(10)
    node.night(gpus=range(7))
    node.bench("baseline", "reset", "--reason", "card 7 was taken out", profile=False)
    assert node.entries(node.night(gpus=range(7)))[0] == "GO"


def test_what_another_version_calls_otherwise_is_not_missed(node: Node) -> None:
    old = {"versions": {**FACTS["versions"], "bench": "0.9.0"}}
    node.nights(10, facts=old, ways=[{**SEND, "way": "there"}, {**RECEIVE, "way": "back"}])
    decision, found = node.entries(node.night())
    assert (decision, {entry["status"] for entry in found.values()}) == ("GO", {"warming"})
    decision, found = node.entries(node.night(ways=[SEND], gpus=range(7)))
    assert sorted(name for name, entry in found.items() if entry["status"] == "missing") == ["drain 7", "throttle 7"]


def test_an_rdma_card_that_vanished_is_missed_by_the_gate_that_asks_only_nodes_with_one(tmp_path: Path) -> None:
    """No port any more: the gate did not apply, and TCP alone was GO."""
    bench = Bench(tmp_path)
    gates = (GATE.format(metric=metric, bound="min = 1.0") for metric in ("rdma_write_bytes_per_second", READ))
    rdma, tcp = gates
    bench.profile.write_text(rdma + 'when = "rdma"\n' + tcp.partition('"nightly"')[2])
    request = {**REQUEST, "probes": ["storage", "rdma", "fabric"]}
    for number in range(9):
        ports = {"probe": "fabric", "outcome": "ok", "measurements": [measurement("fabric_rdma_ports", 1.0, {})]}
        rdma_ = measurement("rdma_write_bytes_per_second", 25e9, {"peer": "10.0.0.2"})
        results = [ports, {"probe": "rdma", "outcome": "ok", "measurements": [rdma_]}]
        if number == 8:
            ports["measurements"] = [measurement("fabric_rdma_ports", 0.0, {})]
            results[1] = {"probe": "rdma", "outcome": "unsupported", "reason": "no_device: none"}
        read = {"probe": "storage", "outcome": "ok", "measurements": [measurement(READ, 1e9, SEQUENTIAL)]}
        run = document(number, [], request=request, results=[*results, read])
        store(tmp_path, run)
    status, out = bench("gate", run["id"], "--baseline", "--json")
    verdict = json.loads(out)["verdicts"][0]
    assert (status, verdict["decision"], verdict["required"]) == (3, "INCONCLUSIVE", 2)
    assert verdict["findings"][0]["reason"].startswith(
        "missing: rdma_write_bytes_per_second{peer=10.0.0.2} measured on"
    )


# --- nights


def test_the_runs_of_one_afternoon_are_one_night(tmp_path: Path) -> None:
    """Seven runs on one day were a baseline of seven nights, and the next healthy day REGRESSED."""
    bench = Bench(tmp_path)
    nights = Nights(tmp_path)
    for number in range(7):
        nights.add(at=START + timedelta(hours=12, minutes=20 * number), read=1.0 + 0.001 * number)
    entry = bench.gate(nights.add(at=START + timedelta(days=2), read=0.8))[2][READ]
    assert (entry["status"], entry["nights"]) == ("warming", 1)


def test_a_timer_with_its_jitter_makes_a_night_each_night(tmp_path: Path) -> None:
    bench, draw = Bench(tmp_path), random.Random(3)
    nights = Nights(tmp_path)
    for number in range(20):
        nights.add(at=START + timedelta(days=number, minutes=draw.uniform(0.0, 90.0)))
    assert bench.gate(nights.add(at=START + timedelta(days=20)))[2][READ]["nights"] == 20


def test_a_bad_run_of_the_same_night_confirms_a_later_one(tmp_path: Path) -> None:
    bench, nights = Bench(tmp_path), Nights(tmp_path)
    nights.add_many(14)
    nights.add(read=0.75)
    later = nights.add(read=0.75, at=START + timedelta(days=14, hours=10))
    assert bench.gate(later)[2][READ]["status"] == "regressed"
    mended = nights.add(at=START + timedelta(days=14, hours=12))
    assert bench.gate(mended)[:2] == (0, "GO")


def known(node: Node, run: dict[str, Any], metric: str) -> tuple[History, Key]:
    """What the store has before a run, and the first series of that metric in it."""
    found, metrics = Run.model_validate(run), declared().metrics
    key = next(key_of(m, metrics[metric]) for m in found.find(metric))
    with Index(node.bench.root) as index:
        return history_of(Series(index, metrics, declared().scopes), found, [key]), key


def test_pins_are_nights_and_of_what_was_asked(node: Node) -> None:
    """Seven pinned runs of an afternoon were seven nights, and a pin of another effort or workload judged tonight."""
    for number in range(7):
        node.night(at=START + timedelta(minutes=20 * number))
    status, out = node.bench("baseline", "pin", *(f"node01-{number:05d}" for number in range(7)), profile=False)
    assert status == 0 and "pinned 1 nights" in out
    for request, metric, nights in (
        ({}, SAMPLES, 1),
        ({"options": {"workload": "unet3d"}}, SAMPLES, 0),
        ({"options": {"workload": "unet3d"}}, READ, 1),
        ({"effort": "quick"}, READ, 0),
    ):
        history, key = known(node, node.night(request=request, facts={"kernel": "6.6"}), metric)
        assert len(history.pinned[key]) == nights


def test_more_than_a_hundred_and_twenty_runs_are_remembered(node: Node) -> None:
    """Every bad night was two runs, and the window of 120 runs ran dry of the good ones before."""
    for number in range(70):
        at = START + timedelta(days=number)
        first = node.night(at=at)
        node.night(at=at + timedelta(minutes=9), request={"options": {"confirms": first["id"]}})
    history, key = known(node, node.night(at=START + timedelta(days=70)), READ)
    assert len(history.runs) == len(history.values[key]) == 141


def test_what_is_worse_of_two_figures_of_one_series_in_a_run_decides(node: Node) -> None:
    node.nights(10)
    run = node.night()
    good = run["results"][1]["measurements"][0]
    bad = {**measurement(THROUGHPUT, 6e9, {**SEND, "limited_by": "cpu"})}
    for order in ([good, bad], [bad, good]):
        run["results"][1]["measurements"][:1] = order
        store(node.bench.root, run)
        assert node.entries(run)[1]["network send"]["status"] == "suspect"
        run["results"][1]["measurements"][:2] = [good]
