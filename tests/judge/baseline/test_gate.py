"""`bench gate --baseline` and `bench baseline` on stores of run documents with only the contract's fields."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.cli.app import run as cli
from tests.judge.baseline.make import (
    LATENCY,
    P99,
    PROFILE,
    READ,
    SEQUENTIAL,
    START,
    Nights,
    document,
    measurement,
    store,
)


class Bench:
    """The command line in this process, on one store with one profile."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.profile = root / "nightly.toml"
        self.profile.write_text(PROFILE)
        self.err = ""

    def asks(self, *, read: float = 1.0e8, latency: float = 1.0) -> None:
        """Other limits than those of the profile in `make`."""
        self.profile.write_text(
            PROFILE.replace("min = 1.0e8", f"min = {read}").replace("max = 1.0", f"max = {latency}")
        )

    def __call__(self, *words: str, profile: bool = True) -> tuple[int, str]:
        more = ["--profile", str(self.profile)] if profile else []
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli([*words, "--results", str(self.root), *more])
        self.err = err.getvalue()
        return status, out.getvalue()

    def gate(self, run: dict[str, Any], *words: str) -> tuple[int, str, dict[str, dict[str, Any]]]:
        """(exit status, decision, metric -> its regression entry) of a run."""
        status, out = self("gate", run["id"], "--baseline", "--json", *words)
        found = json.loads(out)
        assert found["run"] == run["id"]
        return status, found["verdicts"][0]["decision"], {entry["metric"]: entry for entry in found["regressions"]}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_healthy_node_is_go_with_every_field_of_the_contract(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(20)
    status, decision, found = bench.gate(nights.add())
    assert (status, decision) == (0, "GO")
    entry = found[READ]
    assert {"metric", "labels", "observed", "expected", "drop_ratio", "minimum_detectable_drop_ratio"} < set(entry)
    assert entry["labels"] == SEQUENTIAL and entry["nights"] == 20 and entry["status"] == "ok"
    assert entry["expected"] == pytest.approx(1e9, rel=0.02)
    assert 0.04 < entry["minimum_detectable_drop_ratio"] < 0.12


def test_suspect_then_regressed_then_well_again(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(14)
    first, second, third = nights.add(read=0.75), nights.add(read=0.75), nights.add()
    status, decision, found = bench.gate(first)
    assert (status, decision, found[READ]["status"], found[LATENCY]["status"]) == (3, "INCONCLUSIVE", "suspect", "ok")
    assert found[READ]["drop_ratio"] == pytest.approx(0.25, abs=0.05)
    status, decision, found = bench.gate(second)
    assert (status, decision, found[READ]["status"], found[LATENCY]["status"]) == (1, "NO-GO", "regressed", "ok")
    assert bench.gate(third)[:2] == (0, "GO")


def test_a_copy_of_a_run_is_no_second_measurement(bench: Bench) -> None:
    """A file that was kept beside the original confirmed it: REGRESSED, "in two separate measurements" of one."""
    nights = Nights(bench.root)
    nights.add_many(14)
    bad = nights.add(read=0.75)
    path = store(bench.root, bad)
    for name in ("20260101T000000Z-copy.json", f"{path.stem} copy.json"):
        path.with_name(name).write_bytes(path.read_bytes())
    status, decision, found = bench.gate(bad)
    assert (status, decision, found[READ]["status"], found[READ]["nights"]) == (3, "INCONCLUSIVE", "suspect", 14)


@pytest.mark.slow
def test_what_nobody_mends_is_regressed_every_night_until_a_reset(bench: Bench) -> None:
    """Was warming from night 86 on, and well from night 93."""
    nights = Nights(bench.root)
    nights.add_many(30)
    runs = [nights.add(read=0.7) for _ in range(370)]
    assert {bench.gate(run)[2][READ]["status"] for run in (*runs[1:120:10], *runs[120::25], runs[-1])} == {"regressed"}
    assert bench.gate(nights.add())[:2] == (0, "GO")
    last = nights.add(read=0.7)
    assert bench("baseline", "reset", "--reason", "a slower disk, on purpose", profile=False)[0] == 0
    assert bench.gate(last)[2][READ]["status"] == "warming"


def test_latency_that_rises_is_a_drop(bench: Bench) -> None:
    bench.asks(latency=5e-3)
    nights = Nights(bench.root)
    nights.add_many(14)
    nights.add(latency=1.4)
    status, _, found = bench.gate(nights.add(latency=1.4))
    assert (status, found[LATENCY]["status"], found[READ]["status"]) == (1, "regressed", "ok")
    assert found[LATENCY]["drop_ratio"] == pytest.approx(0.4, abs=0.08)


def test_a_latency_under_a_tenth_of_its_limit_is_slower_and_decides_nothing(bench: Bench) -> None:
    """Was NO-GO: 8 microseconds of jitter became 10, under a limit of 30 ms."""
    bench.asks(latency=30e-3)
    nights = Nights(bench.root)
    nights.add_many(14)
    nights.add(latency=1.4)
    status, decision, found = bench.gate(last := nights.add(latency=1.4))
    assert (status, decision, found[LATENCY]["status"], found[LATENCY]["gating"]) == (0, "GO", "slower", False)
    assert "slower" in bench("gate", last["id"], "--baseline")[1]
    assert bench.gate(nights.add(latency=3.1))[2][LATENCY]["status"] == "regressed"


@pytest.mark.parametrize(("again", "status"), [(0.75, "regressed"), (1.0, "ok")])
def test_a_run_made_to_confirm_decides_the_first_ones_night(bench: Bench, again: float, status: str) -> None:
    nights = Nights(bench.root)
    nights.add_many(14)
    first = nights.add(read=0.75)
    request = {**first["request"], "options": {"confirms": first["id"]}}
    second = document(
        99, [measurement(READ, 1e9 * again, SEQUENTIAL)], at=START + timedelta(days=14, minutes=10), request=request
    )
    store(bench.root, second)
    assert bench.gate(first)[2][READ]["status"] == status
    assert bench.gate(second)[2][READ]["status"] == status
    entry = bench.gate(nights.add())[2][READ]
    assert (entry["status"], entry["nights"]) == ("ok", 14 if status == "regressed" else 15)  # not a night of its own


def test_the_newest_run_is_the_whole_night_not_its_second_measurement(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node01")
    first = Nights(bench.root).add()
    request = {**first["request"], "options": {"confirms": first["id"]}}
    store(bench.root, document(99, [measurement(READ, 1e9, SEQUENTIAL)], request=request))
    status, out = bench("gate", "--json")
    assert (status, json.loads(out)["run"]) == (0, first["id"])


def test_a_later_run_of_the_same_night_is_a_second_measurement(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(14)
    first = nights.add(read=0.75)
    nights.add(at=START + timedelta(days=14, hours=1))
    assert bench.gate(first)[0] == 0


def test_a_change_of_the_node_opens_a_new_epoch(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(14)
    nights.add_many(3, fingerprint="cafe")
    status, decision, found = bench.gate(nights.add(fingerprint="cafe"))
    assert (status, decision) == (0, "GO")
    assert (found[READ]["status"], found[READ]["nights"]) == ("warming", 3)
    assert found[READ]["reason"] == "warming: 3/7 nights since fingerprint: f00d -> cafe"


def test_what_changed_is_told(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(9, node={"hostname": "node01", "fingerprint": "a", "facts": {"kernel": "6.1", "gpus": ["H100"]}})
    node = {"hostname": "node01", "fingerprint": "b", "facts": {"kernel": "6.6", "gpus": ["H100"]}}
    assert "kernel: 6.1 -> 6.6" in bench.gate(nights.add(node=node))[2][READ]["reason"]


def _verdict(decision: str, profile: str = "nightly") -> dict[str, Any]:
    return {"profile": profile, "digest": "0", "decision": decision, "score": 0.0, "findings": []}


@pytest.mark.parametrize(
    ("spoilt", "counted"),
    [
        ({"verdicts": [_verdict("NO-GO")]}, False),
        ({"verdicts": [_verdict("NO-GO", "other")]}, False),  # never judged by this profile: any NO-GO counts
        ({"verdicts": [_verdict("GO"), _verdict("NO-GO", "other")]}, True),
        ({"verdicts": [_verdict("INCONCLUSIVE")]}, True),
        ({"interrupted_by": 15}, False),
        ({"replay_of": "node01-00001"}, False),
    ],
)
def test_only_good_nights_enter(bench: Bench, spoilt: dict[str, Any], counted: bool) -> None:
    nights = Nights(bench.root)
    nights.add_many(10)
    nights.add_many(5, **spoilt)
    assert bench.gate(nights.add())[2][READ]["nights"] == (15 if counted else 10)


def test_a_contended_measurement_neither_enters_nor_alarms(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(10)
    for number in range(20, 24):
        slow = [measurement(READ, 2e8, SEQUENTIAL, invalid="contended: fio"), measurement(LATENCY, 1e-3, P99)]
        store(bench.root, document(number, slow))
    last = document(30, [measurement(READ, 2e8, SEQUENTIAL, invalid="contended: fio"), measurement(LATENCY, 1e-3, P99)])
    store(bench.root, last)
    status, decision, found = bench.gate(last)
    assert (status, decision) == (3, "INCONCLUSIVE")
    assert READ not in found
    nights.number = 40
    assert bench.gate(nights.add())[2][READ]["nights"] == 10


def test_a_noisy_node_is_inconclusive_where_the_drop_that_could_hide_would_break_a_limit(bench: Bench) -> None:
    """Half of healthy nights were INCONCLUSIVE, though no drop that could hide came near a limit. What tonight's own
    value rules out can not hide: at 600 MB/s half of them were so still.
    """
    nights = Nights(bench.root, spread=0.3, seed=5)
    nights.add_many(20)
    last = nights.add()
    tonight = next(m["value"] for r in last["results"] for m in r["measurements"] if m["metric"] == READ)
    for limit in (1e8, 0.5 * tonight):
        bench.asks(read=limit)
        status, decision, found = bench.gate(last)
        assert {(entry["status"], entry["gating"]) for entry in found.values()} == {("undetectable", False)}
        assert (status, decision) == (0, "GO")
    bench.asks(read=0.6 * tonight)
    status, decision, found = bench.gate(last)
    assert {entry["metric"]: entry["gating"] for entry in found.values()} == {READ: True, LATENCY: False}
    assert (status, decision) == (3, "INCONCLUSIVE")


def test_a_metric_that_this_version_does_not_know_is_not_judged(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(14)
    last = document(20, [measurement("storage_dreams_per_second", 1.0, {}), measurement(READ, 1e9, SEQUENTIAL)])
    store(bench.root, last)
    assert {name: entry["status"] for name, entry in bench.gate(last)[2].items()} == {READ: "ok", LATENCY: "missing"}


def test_siblings_narrow_the_interval(bench: Bench) -> None:
    nights = Nights(bench.root, spread=0.04)
    nights.add_many(8)
    alone = bench.gate(nights.add())[2][READ]["minimum_detectable_drop_ratio"]
    for number in range(6):
        Nights(bench.root, spread=0.04, seed=100 + number, host=f"node{10 + number}").add_many(15)
    pooled = bench.gate({"id": "node01-00008"})[2][READ]["minimum_detectable_drop_ratio"]
    assert pooled < alone


def test_pin_reset_unpin(bench: Bench) -> None:
    nights = Nights(bench.root, spread=0.01)
    nights.add_many(12)
    assert bench("baseline", "pin", "--reason", "accepted")[0] == 0
    for night in range(60):
        last = nights.add(read=0.9985**night)
    status, decision, found = bench.gate(last)
    assert (status, decision, found[READ]["status"]) == (1, "NO-GO", "regressed")
    shown = json.loads(bench("baseline", "show", "--json")[1])
    assert (shown["node"], shown["pin"]["reason"], len(shown["pin"]["runs"])) == ("node01", "accepted", 12)
    assert bench("baseline", "unpin", profile=False)[0] == 0
    assert bench("baseline", "reset", "--reason", "disk replaced", profile=False)[0] == 0
    assert bench.gate(last)[2][READ]["nights"] == 0
    assert bench.gate(nights.add())[2][READ]["status"] == "warming"


def test_a_reset_takes_a_reason_and_a_node_that_is_there(bench: Bench) -> None:
    Nights(bench.root).add_many(1)
    assert bench("baseline", "reset", profile=False)[0] == 2
    assert bench("baseline", "reset", "--reason", " ", profile=False)[0] == 2
    assert bench("baseline", "show", "--node", "gpu\x1b[31m")[0] == 2
    assert "\x1b" not in bench.err
    assert bench("baseline", "unpin", profile=False)[0] == 2


def test_pins_that_cannot_be_read_are_one_line_that_names_the_file(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(9)
    (bench.root / "baselines").mkdir()
    (bench.root / "baselines" / "node01.json").write_text('{"hostname": 7}')
    status, _ = bench("gate", "node01-00008", "--baseline")
    assert status == 2
    assert "baselines/node01.json" in bench.err and len(bench.err.splitlines()) == 1


def test_pins_of_several_nodes_at_once_are_refused(bench: Bench) -> None:
    Nights(bench.root).add()
    Nights(bench.root, host="node02").add()
    assert bench("baseline", "pin", "node01-00000", "node02-00000")[0] == 2


@pytest.mark.parametrize(
    ("hours", "words", "status"),
    [
        (1, (), 0),
        (30, (), 3),
        (30, ("--on-inconclusive", "pass"), 0),
        (30, ("--on-inconclusive", "fail"), 1),
        (-24, (), 3),  # of the future
    ],
)
def test_a_stale_run_is_inconclusive(bench: Bench, hours: float, words: Sequence[str], status: int) -> None:
    nights = Nights(bench.root)
    nights.add(at=datetime.now(UTC) - timedelta(hours=hours))
    found, out = bench("gate", "node01-00000", "--max-age", "26h", "--json", *words)
    assert found == status
    assert json.loads(out)["verdicts"][0]["decision"] == ("GO" if hours == 1 else "INCONCLUSIVE")


@pytest.mark.parametrize(
    "words",
    [("--max-age", "soon"), ("--on-inconclusive", "maybe"), ("--baseline", "--detect", "130%")],
)
def test_an_option_that_means_nothing_is_status_two(bench: Bench, words: Sequence[str]) -> None:
    Nights(bench.root).add()
    assert bench("gate", "node01-00000", *words)[0] == 2


def test_history_and_compare(bench: Bench) -> None:
    nights = Nights(bench.root)
    nights.add_many(12)
    nights.add(read=0.6)
    status, out = bench("history", READ, "--json", profile=False)
    (series,) = json.loads(out)["series"]
    assert status == 0 and series["labels"] == SEQUENTIAL and len(series["points"]) == 13
    assert bench("history", READ, "--label", "pattern=random", profile=False)[0] == 2
    assert bench("history", "storage_read_bytes_per_secnd", profile=False)[0] == 2
    assert READ in bench.err
    status, out = bench("compare", "node01-00000", "node01-00012", "--json", profile=False)
    found = {entry["metric"]: entry for entry in json.loads(out)["differences"]}
    assert (status, found[READ]["verdict"], found[LATENCY]["verdict"]) == (0, "worse", "same")


def test_a_comparison_says_that_the_two_were_measured_otherwise(bench: Bench) -> None:
    nights = Nights(bench.root)
    first = nights.add()
    nights.add(request={**first["request"], "effort": "quick", "accelerator": "cpu"})
    assert json.loads(bench("compare", "node01-00000", "node01-00001", "--json", profile=False)[1])["facts"] == [
        "effort: standard -> quick",
        "accelerator: auto -> cpu",
    ]


def test_gate_without_the_baseline_reads_no_index(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.store.index as index

    Nights(bench.root).add()
    monkeypatch.setattr(index, "Index", None)
    assert bench("gate", "node01-00000")[0] == 0


MANY = """
name = "many"
description = "a test"
[[gate]]
metric = "network_throughput_bytes_per_second"
min = 1.0e8
source = "a test"
[[gate]]
metric = "accelerator_uncorrected_errors"
max = 0
source = "a test"
[[gate]]
metric = "storage_read_bytes_per_second"
min = 1.0e8
source = "a test"
"""


def test_no_series_of_a_gate_keeps_another_from_deciding(bench: Bench) -> None:
    """Was GO: of two peers only `receive` had one of the eight places, and counters of `max = 0` took three of them."""
    bench.profile.write_text(MANY)
    rates = [
        ("network_throughput_bytes_per_second", {"peer": p, "direction": d}) for p in "ab" for d in ("receive", "send")
    ]
    rates += [(READ, {**SEQUENTIAL, "path": f"/data{disk}"}) for disk in range(8)]
    counts = [("accelerator_uncorrected_errors", {"device": str(device)}) for device in range(8)]

    def night(number: int, slow: int = -1) -> dict[str, Any]:
        wobble = 1.0 + 0.005 * (number % 3 - 1)
        found = [
            measurement(metric, (1e9 + 1e7 * at) * wobble * (0.6 if at == slow else 1.0), labels)
            for at, (metric, labels) in enumerate(rates)
        ]
        found += [measurement(metric, 0.0, labels) for metric, labels in counts]
        made = document(number, found)
        made["request"]["storage"], made["request"]["peers"] = [f"/data{disk}" for disk in range(8)], ["a", "b"]
        store(bench.root, made)
        return made

    for number in range(14):
        night(number)
    for number, slow in enumerate((3, 11)):  # the fastest of a gate when it is well, and not its slowest tonight
        night(20 + 10 * number, slow)
        run = night(21 + 10 * number, slow)
        status, out = bench("gate", run["id"], "--baseline", "--json")
        found = {entry["status"]: entry["labels"] for entry in json.loads(out)["regressions"]}
        assert (status, found["regressed"]) == (1, rates[slow][1])
        assert len(json.loads(out)["regressions"]) == len(rates)
