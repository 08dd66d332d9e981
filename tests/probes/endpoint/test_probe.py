"""`bench run --endpoint`: what it refuses, what it says first, what it leaves out, and that no secret gets anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.judge.gate import judge, judge_gate
from bench.judge.profile import Gate
from bench.measure import tools
from bench.model import Code, Effort, Outcome, ProbeResult, Request, Run, Status
from bench.show.matrix import Matrix
from bench.workflows.catalog import declared, load_catalog
from bench.workflows.judging import to_repeat
from bench.workflows.request import RunOptions, request_of, why_not
from bench.workflows.run import dry_run
from probes.common.metrics import figure
from probes.common.pipe import Record
from probes.common.sustained import SearchEnd
from probes.endpoint.parse import busiest_second, doubt, parse, tokens_a_chunk, told, windows
from probes.endpoint.plan import Settings, announced, arrivals, completions, first_rate, held_requests, prompt
from probes.endpoint.probe import PROBE
from probes.endpoint.records import Answer, SelfCheck, Window, line, read
from tests.judge.make import run as a_run
from tests.probes.endpoint.harness import ROOT, simulated

KEY = "sk-9vQ2mZrT7LwX4bNd"
URL = "http://127.0.0.1:8000"


def asked(tmp_path: Path, *probes: str, flags: dict[str, str]) -> RunOptions:
    return RunOptions(
        profile=[], probe=list(probes), storage=[tmp_path], peer=[], accelerator="cpu", effort="quick", results=None,
        replay=None, flags=flags, option=[], baseline=False, precision=None, patience=None, quiet_check=False,
        confirms=None,
    )  # fmt: skip


def requested(options: RunOptions) -> Request:
    return request_of(options, {}, declared())


# --- what was asked for


def test_with_a_server_nothing_else_loads_the_cards(tmp_path: Path) -> None:
    request = requested(asked(tmp_path, flags={"endpoint": URL}))
    assert not {"inference", "feed", "collective"} & set(request.probes)
    assert {"endpoint", "storage", "network", "gpu", "host"} <= set(request.probes)
    left = {probe.name: why_not(probe, request) for probe in declared().probes if probe.name not in request.probes}
    assert "--endpoint" in left["inference"] and "--endpoint" in left["feed"]


def test_both_are_measured_where_both_are_named(tmp_path: Path) -> None:
    assert requested(asked(tmp_path, "inference", flags={"endpoint": URL})).probes == ("inference", "endpoint")
    assert "inference" in requested(asked(tmp_path, flags={})).probes


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"endpoint": f"http://me:{KEY}@gpu1:8000"}, "--endpoint: holds a user or a password"),
        ({"endpoint": f"http://gpu1:8000/?key={KEY}"}, "--endpoint: has a query"),
        ({"endpoint": "gpu1"}, "--endpoint: is no URL"),
        ({"endpoint": URL, "endpoint_max_rate": "0"}, "--endpoint-max-rate 0: '0' is not a number above 0"),
        ({"endpoint": URL, "rate": "6"}, "--rate 6 is over --endpoint-max-rate 5"),
        ({"endpoint": URL, "rate": "1e-9"}, "--rate 1e-09 makes fewer than 10 requests in"),
        ({"endpoint": URL, "endpoint_max_rate": "0.01"}, "--endpoint-max-rate 0.01 makes fewer than 10 requests in"),
        ({"endpoint": URL, "endpoint_shared_prefix": "1000000000"}, "is more than 131072 tokens"),
        ({"endpoint": URL, "endpoint_key_file": "/nowhere/key"}, "/nowhere/key: No such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line_without_the_secret(flags: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        requested(asked(tmp_path, flags=flags))
    assert said in str(refused.value) and KEY not in str(refused.value) and "\n" not in str(refused.value)


def test_a_key_of_the_environment_that_is_none_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_ENDPOINT_KEY", f"{KEY}\nX-Header: of-another")
    with pytest.raises(UserError, match=r"\$BENCH_ENDPOINT_KEY: holds no key") as refused:
        requested(asked(tmp_path, flags={"endpoint": URL}))
    assert KEY not in str(refused.value)
    assert requested(asked(tmp_path, flags={})).probes, "without a server it is nobody's"


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(tmp_path: Path) -> None:
    lines = dry_run(asked(tmp_path, flags={"endpoint": "http://127.0.0.1:9", "endpoint_max_rate": "20"}))
    assert "20 requests/s" in lines[0] and "requests in" in lines[1]
    assert json.loads(lines[-1].removeprefix("POST "))["max_tokens"] == 64
    assert dry_run(asked(tmp_path, flags={})) == []


def test_no_child_sees_a_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ENDPOINT_KEY", KEY)
    assert KEY not in tools.environment().values()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "environment"])
def test_a_planted_key_is_in_no_byte_that_is_left(how: str, tmp_path: Path) -> None:
    """The server takes the key, then echoes it in an error to every request; nothing of it is kept or printed."""
    file, results = tmp_path / "key", tmp_path / "results"
    results.mkdir()
    file.write_text(KEY)
    words = ["--endpoint-key-file", str(file)] if how == "file" else []
    env = {**os.environ, "BENCH_ENDPOINT_KEY": KEY if how == "environment" else "another-key-of-ours"}
    said: dict[str, Any] = {"key": KEY, "fault": "tells the key", "after": 20}
    for config in [said, {"key": "no"}] if how == "file" else [said]:
        with simulated(tmp_path, **config) as server:
            done = subprocess.run(
                [sys.executable, "-m", "bench", "run", "--endpoint", server.url, "--probe", "endpoint", "--rate", "120",
                 "--endpoint-max-rate", "120", "--effort", "quick", "--results", str(results), "--exit-zero",
                 "--no-quiet-check", "--option", "output_tokens=4", "--option", "request_timeout=2", *words],
                cwd=ROOT, env={**env, "BENCH_LOCK": str(tmp_path / "lock")}, capture_output=True, timeout=200,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        document = max(results.glob("runs/*/*.json"), key=lambda path: path.stat().st_mtime)
        (found,) = [r for r in Run.model_validate_json(document.read_text()).results if r.probe == "endpoint"]
        assert found.outcome is (Outcome.FAILED if config["key"] == "no" else Outcome.OK), found.reason
        pieces = [KEY.encode()[at : at + 6] for at in range(len(KEY) - 5)]
        kept = [path for path in results.rglob("*") if path.is_file()]
        assert any("raw" in str(path) for path in kept)
        for text in (done.stdout, done.stderr, *(path.read_bytes() for path in kept)):
            assert not any(piece in text for piece in pieces)


def run_of(folder: Path, *words: str, status: int = 0) -> Run:
    """`bench run` of these probes at its quickest; the document that it stored."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--effort", "quick", "--results", str(results), "--exit-zero",
         "--no-quiet-check", *words],
        cwd=ROOT, env={**os.environ, "BENCH_LOCK": str(folder / "lock")}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == status, done.stderr[-2000:]
    newest = max(results.glob("runs/*/*.json"), key=lambda path: path.stat().st_mtime_ns)
    return Run.model_validate_json(newest.read_text())


@pytest.mark.slow
def test_a_stall_of_the_server_stands_at_its_moment_on_the_clock_of_the_watchers(tmp_path: Path) -> None:
    """By the server's own log; a recording says the same."""
    with simulated(tmp_path, stall_at=300, stall=1.5) as server:
        run = run_of(tmp_path, "--endpoint", server.url, "--probe", "endpoint", "--probe", "host", "--rate", "40",
                     "--endpoint-max-rate", "40", "--option", "output_tokens=4")  # fmt: skip
        (stalled,) = (entry["arrived"] for entry in server.truth() if entry["n"] == 300)
    (raw,) = (tmp_path / "results").glob("runs/*/*.raw")
    (clock,) = {float(path.read_text()) for path in raw.glob("*-endpoint-clock.txt")}
    lines = [series for result in run.results for series in result.series]
    firsts = [series for series in lines if series.metric == "inference_first_token_seconds"]
    slowest, at = max(zip(firsts[0].values, firsts[0].seconds, strict=True))
    assert slowest > 1.4 and abs(at - (stalled - clock)) <= 1.0
    turns = [series for series in lines if series.metric == "host_network_send_bytes_per_second"]
    assert len(turns) == len(firsts), "a line a round"
    for first, turn in zip(firsts, turns, strict=True):
        assert turn.labels == {"stage": "endpoint"}
        assert turn.seconds[0] < first.seconds[0] < first.seconds[-1] < turn.seconds[-1]
    again = run_of(tmp_path, "--replay", str(raw))
    assert [s for result in again.results for s in result.series if s.metric == firsts[0].metric] == firsts


# --- what it means


def an_answer(at: float, *chunks: float, **more: object) -> Answer:
    given = {"stage": "held", "scheduled": at, "lag": 0.0, "chunks": chunks, "late": (0.0001,) * len(chunks),
             "ended": chunks[-1] if chunks else at, "token_count": len(chunks), "counted": "usage"}  # fmt: skip
    return Answer(**{**given, **more})  # type: ignore[arg-type]


def a_window(**more: object) -> Window:
    given = {"stage": "held", "began": 0.0, "rate": 10.0, "seconds": 60.0, "planned": 600, "sent": 600, "output": 3,
             "cpu_ratio": 0.1, "first_token_limit": 0.2, "inter_token_limit": 0.05, "delay_ratio": 0.0}  # fmt: skip
    return Window(**{**given, **more})  # type: ignore[arg-type]


CHECK = SelfCheck((0.0001,) * 400, 4, 30.0, 4000.0, 0.005, True)


def load(
    n: int = 600, bad: int = 0, size: int = 1, window: Window | None = None, check: SelfCheck | None = CHECK
) -> list[Record]:
    """``n`` requests of three chunks; ``bad`` of them torn after one."""
    good = [an_answer(0.1 * i, *(0.1 * i + t for t in (0.1, 0.12, 0.14)), token_count=3 * size) for i in range(n - bad)]
    torn = [an_answer(0.1 * i, 0.1 * i + 0.1, code="torn") for i in range(n - bad, n)]
    return [*good, *torn, a_window(), CHECK]


def test_what_it_says_is_read_back_as_it_was() -> None:
    found: list[Record] = [*load(3), SearchEnd(0.9, 3, 10.0, None)]
    assert read("\n".join(map(line, found))) == found


def test_figures_are_those_of_the_answers() -> None:
    found = {(m.metric, m.labels.get("statistic")): m for m in parse(load(), URL)}
    first = found["inference_first_token_seconds", "p99"]
    assert first.value == pytest.approx(0.1) and first.labels == {
        "endpoint": URL,
        "stage": "endpoint",
        "statistic": "p99",
    }
    assert found["inference_inter_token_seconds", "p99"].value == pytest.approx(0.02)
    assert found["endpoint_success_ratio", None].counts == (600, 600)
    assert found["inference_goodput_ratio", None].counts == (600, 600)
    assert found["inference_tokens_per_second", None].value == pytest.approx(30.0, rel=0.01)
    assert not [m for m in found.values() if m.invalid]
    declared_names = {metric.name for metric in PROBE.metrics} | set(PROBE.also)
    assert {metric for metric, _ in found} <= declared_names


def test_a_failure_is_counted_whatever_its_times_were() -> None:
    found = {m.metric: m for m in parse(load(bad=30), URL)}
    assert found["endpoint_success_ratio"].counts == (570, 600)
    assert found["inference_goodput_ratio"].counts == (570, 600)
    assert (found["endpoint_failed_requests"].value, found["endpoint_failed_requests"].labels["code"]) == (30.0, "torn")
    assert any("30 of 600" in text for text in told(load(bad=30)))


@pytest.mark.parametrize(("sent", "lines"), [(600, 0), (590, 1)])
def test_what_was_not_sent_is_told_where_there_is_any(sent: int, lines: int) -> None:
    found = told([*load()[:-2], a_window(sent=sent, stopped="25 requests in a row failed")])
    assert len([text for text in found if "were not sent" in text]) == lines


def test_chunks_of_several_tokens_have_no_slowest_time_between_tokens() -> None:
    found = [m for m in parse(load(size=3), URL) if m.metric == "inference_inter_token_seconds"]
    assert [m.labels["statistic"] for m in found] == ["p50"]
    assert found[0].value == pytest.approx(0.04 / 6), "six tokens after the first chunk"
    ((_, answers),) = windows(load(size=3))
    assert tokens_a_chunk(answers) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("window", "check", "answers", "code"),
    [
        (a_window(cpu_ratio=0.9), CHECK, {}, Code.CLIENT_LIMITED),
        (a_window(delay_ratio=0.2), CHECK, {}, Code.CONTENDED),
        (a_window(), None, {}, Code.CLIENT_LIMITED),
        (a_window(), SelfCheck((0.02,) * 400, 4, 30.0, 4000.0, 0.005, True), {}, Code.CLIENT_LIMITED),
        (a_window(), SelfCheck((0.0001,) * 400, 4, 30.0, 40.0, 0.005, True), {}, Code.CLIENT_LIMITED),
        (a_window(), SelfCheck((0.0001,) * 400, 4, 30.0, 40.0, 0.005, False), {}, None),
        (a_window(), CHECK, {"late": (0.02, 0.02, 0.02)}, Code.CLIENT_LIMITED),
        (a_window(), CHECK, {"lag": 0.02}, Code.SCHEDULE_LAG),
        (a_window(), CHECK, {}, None),
    ],
)  # fmt: skip
def test_a_client_that_was_the_limit_is_told(
    window: Window, check: SelfCheck | None, answers: dict[str, object], code: Code | None
) -> None:
    said = [an_answer(0.1 * i, *(0.1 * i + t for t in (0.1, 0.12, 0.14)), **answers) for i in range(600)]
    found = doubt(window, said, check)
    assert (found or "").partition(":")[0] == (code or "")
    assert busiest_second(said) == pytest.approx(30.0, abs=3)


def test_the_gates_judge_the_worse_of_the_server_and_our_own_load() -> None:
    gate = Gate(metric="inference_first_token_seconds", labels={"statistic": "p99"}, max=0.14, source="x" * 10)
    slow = parse([*load()[:-2], a_window(), CHECK], URL)
    own = [m.model_copy(update={"value": 0.5, "interval": (0.4, 0.6), "labels": {"stage": "serve", "statistic": "p99"}})
           for m in slow if m.metric == gate.metric and m.labels["statistic"] == "p99"]  # fmt: skip
    results = [ProbeResult(probe="endpoint", outcome=Outcome.OK, measurements=tuple(slow)),
               ProbeResult(probe="inference", outcome=Outcome.OK, measurements=tuple(own))]  # fmt: skip
    both = a_run(*results)
    finding, _ = judge_gate(both, gate, {})
    assert (finding.status, finding.observed) == (Status.FAIL, 0.5)
    finding, _ = judge_gate(a_run(results[0]), gate, {})
    assert finding.status is Status.PASS


def test_a_gate_of_the_server_asks_only_where_one_was_named() -> None:
    catalog = load_catalog(["realtime-inference"])
    request = Request(effort=Effort.QUICK, probes=("endpoint",), options={"endpoint": URL})
    assert catalog.owners_in(request)["inference_first_token_seconds"] == "endpoint"
    assert catalog.owners["inference_first_token_seconds"] == "inference"
    failed = ProbeResult(
        probe="endpoint", outcome=Outcome.FAILED, reason="connection_refused: it is", remedy="start it"
    )
    run = a_run(failed).model_copy(update={"request": request})
    gates = {(g.metric, g.when): g for g in catalog.profiles[0].gates}
    asks = gates["endpoint_success_ratio", "endpoint"]
    finding, _ = judge_gate(run, asks, catalog.owners_in(request))
    assert finding.reason == "probe_failed: connection_refused: it is" and finding.required
    finding, _ = judge_gate(a_run(failed), asks, catalog.owners)
    assert not finding.required and (finding.reason or "").startswith("not_applicable: ")
    busy = failed.model_copy(update={"reason": "contended: others"})
    assert "endpoint" in to_repeat(run.model_copy(update={"results": (busy,)}), catalog)


def test_the_screen_says_what_is_left_to_the_server_and_what_decides_it(tmp_path: Path) -> None:
    """A command without the server, and nothing of it in that: not its rate, not its limits."""
    request = requested(asked(tmp_path, flags={"endpoint": URL, "rate": "4", "endpoint_model": "m"}))
    left = {p.name: why_not(p, request) for p in declared().probes if p.name not in request.probes}
    results = [ProbeResult(probe=name, outcome=Outcome.SKIPPED, reason=f"{Code.NOT_ASKED_FOR}: {why}")
               for name, why in left.items()]  # fmt: skip
    run = a_run(*results).model_copy(update={"request": request})
    catalog = load_catalog(["batch-inference"])
    judged = judge(run, catalog.profiles[0], catalog.owners_in(request))
    shown = Matrix(run.model_copy(update={"verdicts": (judged,)}), declared().probes)
    (cause,) = (hole for hole in shown.missing if "waiting for data" in hole.names)
    assert cause.cause == "left to the server, which has the cards for itself (--endpoint)"
    (step,) = (step for step in shown.steps if "before the server starts" in step.purpose)
    assert step.command == f"bench run --probe feed --effort quick --storage {tmp_path} --accelerator cpu"
    again = [step.command for step in shown.steps if "--probe endpoint" in step.command]
    assert all("--endpoint-model m" in command and f"--endpoint {URL}" in command for command in again)


def test_a_server_s_times_that_are_not_there_need_no_gpu(tmp_path: Path) -> None:
    """Too few requests for a p99, on a node without a card: more effort measures it."""
    request = requested(asked(tmp_path, flags={"endpoint": URL}))
    found = ProbeResult(probe="endpoint", outcome=Outcome.OK, measurements=(figure("endpoint_open_seconds", 1.0, {}),))
    run = a_run(found).model_copy(update={"request": request})
    catalog = load_catalog(["realtime-inference"])
    judged = judge(run, catalog.profiles[0], catalog.owners_in(request))
    shown = Matrix(run.model_copy(update={"verdicts": (judged,)}), declared().probes)
    (cause,) = (hole.cause for hole in shown.missing if "time to first token p99" in hole.names)
    assert cause == "endpoint has no such figure at effort quick"
    assert any("--probe endpoint --effort standard" in step.command for step in shown.steps)


# --- what is sent


def test_no_two_prompts_begin_alike_unless_that_was_asked_for() -> None:
    import random

    draw = random.Random(7)
    texts = [prompt(draw, 50) for _ in range(200)]
    assert len({text.split()[0] for text in texts}) == 200 and {len(text.split()) for text in texts} == {50}
    shared = [prompt(draw, 50, prefix=20) for _ in range(200)]
    assert len({" ".join(text.split()[:20]) for text in shared}) == 1
    assert len({text.split()[20] for text in shared}) == 200


@pytest.mark.parametrize("base", [URL, f"{URL}/", f"{URL}/v1", f"{URL}/v1/", f"{URL}/v1/chat/completions"])
def test_the_path_is_found_however_much_of_it_was_named(base: str) -> None:
    settings = Settings(url=base, seconds=10.0, enough=10)
    assert completions(settings.address, "chat") == f"{URL}/v1/chat/completions"
    assert completions(settings.address, "completions") == f"{URL}/v1/completions"


def test_a_plan_never_asks_for_more_than_it_may() -> None:
    for most in (0.5, 5.0, 50.0, 500.0):
        settings = Settings(url=URL, seconds=100.0, enough=560, max_rate=most)
        assert first_rate(settings) <= most
        assert held_requests(settings, most, 70.0) <= min(560, most * 70.0) or most * 70 < 1
        assert f"up to {most:g} requests/s" in announced(settings)[0]
        mean = 1000 / arrivals(most, 1000, 7)[-1]
        assert mean == pytest.approx(most, rel=0.15)
