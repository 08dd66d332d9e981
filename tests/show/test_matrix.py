"""The matrix of a run: each gate once, what decided, why figures are missing, and what to do next."""

from __future__ import annotations

import shlex

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from bench.cli.app import command_line
from bench.model import Decision, Effort, Outcome, ProbeResult, Request, Run, Status
from bench.show.matrix import Mark, Matrix
from bench.show.names import columns, duration, figure, gate_name
from bench.workflows.judging import concluded
from tests.show.runs import CATALOG, recorded
from tests.show.terminal.sample import LATENCY, READ, cpu_run, finding, measurement, verdict


def of(run: Run) -> Matrix:
    return Matrix(run, CATALOG.probes)


@pytest.mark.parametrize("name", ["feed", "peer", "gpu", "h200"])
def test_each_gate_of_each_profile_is_one_row_and_every_profile_has_its_mark(name: str) -> None:
    run = recorded(name)
    found = of(run)
    asked = [{(f.metric, str(f.labels), str(f.limit)) for f in v.findings} for v in run.verdicts]
    rows = [(row.finding.metric, str(row.finding.labels), str(row.finding.limit)) for row in found.rows]
    assert sorted(rows) == sorted(set.union(*asked))
    for at, gates in enumerate(asked):
        assert {key for key, row in zip(rows, found.rows, strict=True) if row.cells[at]} == gates


@pytest.mark.parametrize("name", ["feed", "peer", "gpu", "h200"])
def test_a_gate_without_a_figure_is_missing_once_with_its_cause_and_no_other_is(name: str) -> None:
    found = of(recorded(name))
    named = [text for missing in found.missing for text in missing.names]
    for row in found.rows:
        assert named.count(row.name) == (1 if row.cause else 0), row.name


def test_marks_say_what_a_gate_means_to_a_profile() -> None:
    rows = {row.name: [str(cell or "") for cell in row.cells] for row in of(recorded("feed")).rows}
    assert rows["waiting for storage"] == ["FAIL", "-", ""], "an emulated accelerator counts for training alone"
    assert rows["storage read"] == ["(FAIL)", "(FAIL)", ""], "what never decides is in parentheses"
    assert rows["storage read latency p99"] == ["", "", "ok"]
    assert rows["throttled"] == ["-", "-", "-"]
    assert {
        row.cells[2].mark for row in of(recorded("peer")).rows if row.name == "round trip p99" and row.cells[2]
    } == {Mark.OPEN}


def test_one_figure_with_two_limits_is_two_rows() -> None:
    gates = [finding(READ.metric, Status.PASS, READ, min=low) for low in (1e9, 2e8)]
    run = cpu_run(verdicts=tuple(verdict(name, Decision.GO, 100, (g,)) for name, g in zip("ab", gates, strict=True)))
    assert [(row.needed, [str(c or "") for c in row.cells]) for row in of(run).rows] == [
        (">= 1 GB/s", ["ok", ""]),
        (">= 200 MB/s", ["", "ok"]),
    ]


def test_the_worst_comes_first_and_what_has_no_figure_last() -> None:
    ranks = [row.rank for row in of(recorded("gpu")).rows]
    assert ranks == sorted(ranks) and len(set(ranks)) > 3
    assert of(recorded("gpu")).rows[0].name == "uncorrected errors, GPU 1"


def test_a_profile_says_what_decided_how_much_was_measured_and_what_was_closest() -> None:
    training, batch, _ = of(recorded("h200")).answers
    assert (batch.because, batch.more) == (
        "10 of 10 pass",
        ("closest: memory speed in decode, 82 % to spare", "10 of 10 measured, weakest 100"),
    )
    assert training.because == "7 of 9 pass, 1 needs a peer, 1 not measured"
    failed = of(recorded("feed")).answers[0]
    assert failed.because == "2 of 9 gates fail: waiting for storage 24.9 %, and 1 more"
    assert failed.more == ("5 need a GPU", "1 needs a peer", "3 of 9 measured, weakest 40.1")


def test_storage_that_feeds_too_few_says_how_many() -> None:
    ratio = measurement("storage_headroom_ratio", 2.3, path="/data")
    gate = finding(ratio.metric, Status.FAIL, ratio, min=8.88)
    request = Request(effort=Effort.QUICK, probes=("feed",), accelerator="emulated:unet3d-h100*8")
    run = cpu_run(request=request, verdicts=(verdict("distributed-training", Decision.NO_GO, 1, (gate,)),))
    found = of(run)
    assert found.answers[0].because == "1 of 1 gates fails: storage feeds 2 of 8 accelerators"
    row = found.rows[0]
    assert (row.measured, row.interval, row.needed) == ("2.3", "2.18 to 2.42", ">= 8.88")


def test_the_worst_of_several_paths_peers_and_cards_is_named_and_equals_are_not() -> None:
    fast, slow = (measurement(READ.metric, rate, path=path) for rate, path in ((2e9, "/a"), (1e9, "/b")))
    gate = finding(READ.metric, Status.FAIL, slow, min=3e9)
    storage = ProbeResult(probe="storage", outcome=Outcome.OK, measurements=(fast, slow))
    judged = (verdict("p", Decision.NO_GO, 0, (gate,)),)
    assert of(cpu_run(results=(storage,), verdicts=judged)).rows[0].name == "storage read, /b"
    same = storage.model_copy(update={"measurements": (slow, slow.model_copy(update={"labels": {"path": "/c"}}))})
    assert of(cpu_run(results=(same,), verdicts=judged)).rows[0].name == "storage read"
    share = "service_success_ratio"
    good, bad = (measurement(share, value, service=name) for name, value in (("crm", 1.0), ("calendar", 0.5)))
    doubted = measurement(share, 0.5, service="mail").model_copy(
        update={"invalid": "unauthorized: token in $X rejected"}
    )
    services = ProbeResult(probe="service", outcome=Outcome.OK, measurements=(good, doubted, bad))
    judged = (verdict("agent", Decision.NO_GO, 0, (finding(share, Status.FAIL, bad, min=0.99),)),)
    assert of(cpu_run(results=(services,), verdicts=judged)).rows[0].name == "service success, calendar"


def test_hardware_that_is_not_there_is_a_dash_and_what_failed_is_a_question() -> None:
    run = recorded("feed")
    absent = {row.name: row.cause for row in of(run).rows if row.cause}
    assert absent["throttled"] == "needs a GPU" and absent["active RDMA ports"] == "not asked (this node has no RDMA)"
    broken = ProbeResult(probe="storage", outcome=Outcome.FAILED, reason="tool_failed: fio fell over", remedy="x")
    results = tuple(broken if r.probe == "storage" else r for r in run.results)
    row = next(r for r in of(concluded(run.model_copy(update={"results": results}), CATALOG)).rows if "write" in r.name)
    assert (str(row.cells[0]), row.measured, row.cause) == ("?", "not measured", "failed: fio fell over")


def test_the_head_names_node_effort_time_and_what_was_measured_with() -> None:
    first, second = of(recorded("h200")).head
    assert first == ("vm", "2026-11-26 18:30 UTC", "standard, 2 min 31 s", "run 36b93531c96a")
    assert second == ("1 x NVIDIA H200", "/var/tmp/data: ext4 on vda", "no peer: the loopback stood in")
    assert of(recorded("peer")).head[1][::2] == ("no GPU: the CPU stood in", "peer 127.0.0.1:5301")
    told = of(cpu_run(replay_of="0123", interrupted_by=2)).head[2:]
    assert told == (
        ("replayed from 0123: nothing was measured now",),
        ("interrupted by SIGINT: what was finished is shown",),
    )


def test_what_the_accelerator_did_is_one_sentence() -> None:
    assert of(recorded("h200")).accelerator == (
        "The accelerator: serving, it computed 100 % of the time (the driver says 82 %); it reached 73 % of the "
        "memory's speed and 82 % of the arithmetic; fed from /var/tmp/data, it computed 100 %."
    )
    assert of(recorded("feed")).accelerator == (
        "In place of the accelerator (emulated): fed from /mnt, it computed 70 % and waited 30 %."
    )
    assert of(cpu_run(results=())).accelerator == ""


def test_starvation_is_one_sentence_and_says_when_it_does_not_count() -> None:
    assert of(recorded("feed")).starvation.endswith("(path /mnt; an emulated accelerator stood in for a real one).")
    run = cpu_run()
    assert run.attribution is not None
    doubtful = run.attribution.model_copy(update={"valid": False, "explanation": "One. Two."})
    assert of(run.model_copy(update={"attribution": doubtful})).starvation == "Does not count: One."
    nothing = doubtful.model_copy(update={"bottleneck": "undetermined", "starvation_ratio": None})
    assert of(run.model_copy(update={"attribution": nothing})).starvation == ""


def test_of_several_accelerators_the_sentence_tells_what_all_need() -> None:
    told = of(recorded("gpu")).starvation
    assert told.startswith(
        "All 2 accelerators need 420 MB/s, and /mnt delivers 1.2 GB/s. Fed alone, nothing starves the "
    )


# --- next


def steps(run: Run) -> list[str]:
    return [step.command for step in of(run).steps]


def test_a_step_is_a_command_that_bench_takes_with_its_purpose_and_time() -> None:
    command = get_command(command_line())
    assert isinstance(command, TyperGroup)
    commands = command.commands
    for name in ("feed", "peer", "gpu", "h200"):
        found = of(recorded(name)).steps
        assert 0 < len(found) <= 5
        for step in found:
            program, verb, *words = shlex.split(step.command)
            assert program == "bench"
            commands[verb].make_context(verb, words, resilient_parsing=False).close()
            assert step.seconds > 0 and step.told.endswith(")")


def test_next_is_to_mend_to_decide_to_measure_and_the_hardware() -> None:
    assert (
        steps(recorded("feed"))[0]
        == "bench run --probe feed --effort quick --storage /mnt --accelerator emulated:unet3d-h100"
    )
    assert "after this: Give the data a faster path" in of(recorded("feed")).steps[0].purpose
    assert steps(recorded("peer"))[0] == "bench run --probe network --effort thorough --peer 127.0.0.1:5301"
    assert any("--wait-quiet 10m" in command for command in steps(recorded("peer")))
    assert steps(recorded("peer"))[-1].endswith("--accelerator emulated:unet3d-h100")
    assert steps(recorded("h200")) == [
        "bench doctor",
        "bench run --probe network --probe rdma --probe collective --effort standard --peer HOST",
    ]
    assert Matrix(recorded("feed")).steps == (), "who knows no probe, knows no command"


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("straddles_limit: 1 to 3", "bench run --probe storage --effort thorough --storage /d"),
        ("suspect: 31 % worse", "bench run --probe storage --effort quick --storage /d"),
        ("missing: measured on 7 of 7 nights", "bench doctor"),
        ("not_measured: how many this node has is not known", "bench doctor"),
        ("undetectable: so noisy are the last 30 nights", "bench baseline show"),
        ("stale: measured 30 h ago", "bench run --effort quick --storage /d"),
    ],
)
def test_what_is_undecided_is_decided_by_what_can(reason: str, step: str) -> None:
    """All were to be decided by more samples: at another effort, which is no second measurement of the same series."""
    gate = finding(READ.metric, Status.UNDECIDED, READ, min=1e9, reason=reason)
    request = Request(effort=Effort.QUICK, probes=("storage",), storage=("/d",))
    run = cpu_run(request=request, verdicts=(verdict("p", Decision.INCONCLUSIVE, 0, (gate,)),))
    assert steps(run) == [step]


def test_what_this_effort_cannot_measure_is_measured_at_the_next() -> None:
    reason = "not_measured: the probe storage ran, and measured no storage_read_latency_seconds"
    gate = finding(LATENCY.metric, Status.NO_DATA, labels={"statistic": "p99"}, max=0.01, reason=reason)
    request = Request(effort=Effort.QUICK, probes=("storage",), storage=("/d",))
    run = cpu_run(request=request, verdicts=(verdict("p", Decision.INCONCLUSIVE, 0, (gate,)),))
    assert steps(run) == ["bench run --probe storage --effort standard --storage /d"]


def test_a_gate_of_which_nobody_knows_whether_it_is_asked_waits_for_who_tells() -> None:
    """TCP was measured; whether gradients go by RDMA was not looked at. To measure TCP longer would decide nothing."""
    run, reason = recorded("peer"), "not_asked_for: --probe did not name it"
    kept = ("storage", "network")
    left = tuple(
        r if r.probe in kept else ProbeResult(probe=r.probe, outcome=Outcome.SKIPPED, reason=reason)
        for r in run.results
    )
    found = of(concluded(run.model_copy(update={"results": left}), CATALOG))
    assert not any(f"--probe network --effort {Effort.STANDARD}" in step.command for step in found.steps)
    assert sum(step.command.startswith("bench run --effort quick") for step in found.steps) == 1


def test_a_probe_that_was_given_nothing_to_measure_asks_for_it() -> None:
    gate = finding("data_valid_ratio", Status.NO_DATA, min=1.0, reason="not_measured: the probe data did not run")
    request = Request(effort=Effort.QUICK, probes=("storage",), storage=("/d",))
    run = cpu_run(request=request, results=(), verdicts=(verdict("data", Decision.INCONCLUSIVE, 0, (gate,)),))
    assert steps(run)[0].split(" --accelerator ")[0] == "bench run --probe data --effort quick --data DATA"


# --- words


def test_gates_have_names_for_people_and_others_their_metric() -> None:
    sequential = {"pattern": "sequential", "block_bytes": "1048576", "queue_depth": "deep"}
    assert gate_name("storage_read_bytes_per_second", sequential) == "storage read"
    random = {"pattern": "random", "block_bytes": "4096", "queue_depth": "deep"}
    assert gate_name("storage_read_bytes_per_second", random) == "storage read (random, 4 KiB, deep)"
    assert gate_name("collective_bus_bytes_per_second", {"size_bytes": "16777216"}) == "all-reduce (16 MiB)"
    assert gate_name("a_ratio", {"statistic": "p99"}) == "a (p99)"


def test_every_shipped_gate_has_another_name() -> None:
    for one in CATALOG.profiles:
        names = [(gate_name(g.metric, g.labels), str(g.limit)) for g in one.gates]
        assert len(set(names)) == len(names)


def test_profiles_head_their_columns_shortly_and_differently() -> None:
    assert columns(["distributed-training", "mine"]) == ["train", "mine"]
    long = columns(["a-very-long-name-1", "a-very-long-name-2"])
    assert len(set(long)) == 2 and all(len(name) <= 10 for name in long)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (60, "1 min"), (298, "4 min 58 s"), (3600, "1 h"), (5400, "1.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_noise_around_nothing_is_nothing() -> None:
    assert figure(-3.75e-9, (-1e-8, 1e-3), "starvation_ratio")[0] == "0 %"
    assert figure(-7.6e-5, (-5e-4, 0.02), "starvation_ratio")[0] == "0 %", "a share below nothing"
    assert figure(1e-7, (0.9e-7, 1.1e-7), "network_loss_ratio")[0] != "0 %"
    assert figure(5e-5, None, "network_loss_ratio")[0] == "0.005 %"
