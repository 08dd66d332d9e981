"""One screen: everything that decides is on it, it fits, and nothing foreign writes on it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.output import emit
from bench.model import Decision, Measurement, Node, Outcome, ProbeResult, Run, Status
from bench.show.terminal.screen import is_colourful, render
from bench.show.text import cells
from bench.show.wording import bare_name, margin, quantity, score, scored, title
from tests.show.terminal.golden_screens import FOLDER, screens
from tests.show.terminal.sample import DESCRIPTIONS, READ, cpu_run, finding, measurement, verdict

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def screen(run: Run, width: int = 80, **options: Any) -> str:
    return render(run, width=width, **{"colour": False, "descriptions": DESCRIPTIONS, **options})


@pytest.mark.parametrize("name", screens())
def test_the_screen_is_the_golden_one(name: str) -> None:
    assert screens()[name] == (FOLDER / name).read_text(encoding="utf-8"), (
        "python -m tests.show.terminal.golden_screens"
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
@pytest.mark.parametrize("all_gates", [False, True])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut_away(width: int, all_gates: bool) -> None:
    text = screen(cpu_run(), width, all_gates=all_gates)
    assert max(map(cells, text.splitlines())) <= width
    words = " ".join(text.split())
    for verdict_ in cpu_run().verdicts:
        assert f"{verdict_.decision.value} {verdict_.profile}, score" in words
        for found in verdict_.findings:
            assert bare_name(found) in words
    assert "Storage starves the accelerator" in words


def test_it_is_one_screen() -> None:
    assert screen(cpu_run(), 120).count("\n") <= 45
    assert screen(cpu_run(), 80).count("\n") <= 56, "the worst case: all kinds of failure at once"


def test_every_profile_says_decision_score_and_description() -> None:
    text = " ".join(screen(cpu_run()).split())
    assert "NO-GO distributed-training, score 15.1: Data arrives faster" in text
    assert "GO batch-inference, score 100: The accelerator works" in text


def test_a_gate_shows_what_was_measured_what_is_needed_and_the_margin() -> None:
    line = next(line for line in screen(cpu_run(), 120).splitlines() if "storage read (seq" in line)
    assert line.split("  ")[1].strip() == "fail"
    for part in ("1.05 GB/s (0.998..1.1)", ">= 2.15 GB/s", "51 % short"):
        assert part in line


def test_failing_gates_come_before_undecided_before_no_data_before_passes() -> None:
    marks = re.findall(r"^  (fail|undecided|no data|pass) ", screen(cpu_run(), 120), re.M)
    order = ["fail", "undecided", "no data", "pass"]
    training = marks[: marks.index("no data") + 2]
    assert training == sorted(training, key=order.index)
    assert set(marks) == set(order)


def test_every_stand_in_is_labelled_wherever_it_took_part() -> None:
    for all_gates in (False, True):
        text = " ".join(screen(cpu_run(), 160, all_gates=all_gates).split())
        assert "inference inter token (p50) [stand-in: cpu]" in text
        assert text.count("starvation (total) [stand-in: emulated]") == 1
        assert "starvation (total) [optional] [stand-in: emulated]" in text
        assert "network throughput [stand-in: loopback]" in text
        assert "Starvation (stand-in: emulated): " in text
        assert "stand-ins: cpu, emulated, loopback" in text


def test_what_was_not_measured_is_named_once_with_its_mend() -> None:
    text = " ".join(screen(cpu_run(), 160).split())
    part = text[text.index("Not measured:") : text.index("Warnings:")]
    assert part.count("libnvidia-ml") == 1
    assert "gpu, gpu_deep unsupported: libnvidia-ml.so.1 is not installed" in part
    assert "so no NVIDIA driver is; mend: install the NVIDIA driver" in part
    assert "burn timed out: burn did not end within 60 s" in part
    assert "2 gates: only by a stand-in (loopback); mend: start `bench peer` on another node" in part
    assert "network round trip (p99): the probe echo did not run; mend: add --probe echo" in part


def test_warnings_and_numbers_that_do_not_count_are_shown() -> None:
    text = screen(cpu_run(), 120)
    assert "storage: io_uring is not allowed here; libaio was used" in text
    assert "network: 1 measurement for the record only: the host was contended" in text
    noisy = ProbeResult(
        probe="a", outcome=Outcome.OK, measurements=(READ,), warnings=tuple(f"doubt {n}" for n in range(9))
    )
    assert "and 4 more: bench explain 3f2a9c1b77de" in screen(cpu_run(results=(noisy,)))


def test_an_invalid_attribution_says_that_it_does_not_count() -> None:
    run = cpu_run()
    assert run.attribution is not None
    doubtful = run.model_copy(update={"attribution": run.attribution.model_copy(update={"valid": False})})
    assert "Starvation (does not count, stand-in: emulated): " in screen(doubtful)


def test_a_run_that_is_not_judged_a_replay_and_an_interrupted_one_say_so() -> None:
    text = screen(cpu_run(verdicts=(), attribution=None, replay_of="0123", interrupted_by=2))
    assert "Not judged yet; judge it with: bench gate 3f2a9c1b77de" in text
    assert "replayed from 0123: nothing was measured now" in text
    assert "interrupted by signal 2" in text


def test_the_accelerators_are_named() -> None:
    node = Node(hostname="n", fingerprint="", facts={"gpus": ["NVIDIA H100", "NVIDIA H100", "NVIDIA L4"]})
    assert "accelerator: 2 x NVIDIA H100, NVIDIA L4" in screen(cpu_run(node=node))


def test_several_paths_say_where_the_worst_was() -> None:
    assert "the worst was at" not in screen(cpu_run())
    request = cpu_run().request.model_copy(update={"storage": ("/data", "/scratch")})
    assert "the worst was at path=/data" in screen(cpu_run(request=request))


def test_an_invalid_number_says_why_beside_its_gate() -> None:
    found = finding(READ.metric, Status.UNDECIDED, READ, min=1.0, reason="invalid: reads were not cold")
    run = cpu_run(verdicts=(verdict("p", Decision.INCONCLUSIVE, 0, (found,)),))
    assert "invalid: reads were not cold" in screen(run)


# --- words


def test_a_score_is_never_rounded_up_to_one_hundred() -> None:
    assert [score(v) for v in (100.0, 99.99, 62.34, 0.0)] == ["100", "99.9", "62.3", "0"]


@pytest.mark.parametrize(
    ("value", "limit", "words"),
    [
        (2.0, {"min": 1.0}, "100 % spare"), (0.5, {"min": 1.0}, "50 % short"), (1.0, {"min": 1.0}, "0.0 % spare"),
        (0.97, {"min": 1.0}, "3.0 % short"), (1.3, {"max": 1.0}, "30 % over"), (0.8, {"max": 1.0}, "20 % spare"),
        (40.0, {"max": 1.0}, "39 x over"), (3.0, {"max": 0.0}, ""), (1e300, {"max": 1.0}, "far over"), (1.0, {}, ""),
    ],
)  # fmt: skip
def test_margins(value: float, limit: dict[str, float], words: str) -> None:
    assert margin(finding("a_ratio", Status.PASS, measurement("a_ratio", value), **limit)) == words


@pytest.mark.parametrize(
    ("value", "interval", "metric", "words"),
    [
        (1.5e9, (1.4e9, 1.6e9), "a_bytes_per_second", "1.5 GB/s (1.4..1.6)"),
        (1.02e9, (0.9981e9, 1.04e9), "a_bytes_per_second", "1.02 GB/s (0.998..1.04)"),
        (0.0123, (0.0123, 0.0123), "a_seconds", "12.3 ms"),
        (0.05, (0.0, 0.0712), "a_ratio", "5 % (0..7.12)"),
        (0.0, (0.0, 0.5), "a_ratio", "0 % (0 %..50 %)"),
        (12300.0, (11000.0, 13000.0), "a_tokens_per_second", "12,300 tokens/s (11,000..13,000)"),
        (-0.02, (-0.03, 0.0), "a_ratio", "-2 % (-3..0)"),
    ],
)
def test_quantities(value: float, interval: tuple[float, float], metric: str, words: str) -> None:
    assert quantity(value, interval, metric) == words


def test_titles_say_what_is_counted() -> None:
    names = {
        "storage_read_bytes_per_second": "storage read",
        "storage_read_operations_per_second": "storage read operations",
        "inference_tokens_per_second": "inference tokens",
        "network_loss_ratio": "network loss",
        "network_retransmits": "network retransmits",
    }
    assert {name: title(name) for name in names} == names


@settings(deadline=None)
@given(value=st.floats(-1e308, 1e308), width=st.floats(0, 1e300), limit=st.floats(-1e300, 1e300))
def test_any_finite_number_can_be_shown(value: float, width: float, limit: float) -> None:
    low = max(value - width, -1e308)
    for metric in ("a_seconds", "a_ratio", "a_bytes_per_second", "things"):
        found = Measurement(metric=metric, value=max(value, low), interval=(low, max(value, low)), samples=1)
        run = cpu_run(verdicts=(verdict("p", Decision.NO_GO, 1, (finding(metric, Status.FAIL, found, min=limit),)),))
        assert screen(run)


def test_a_gate_without_data_that_nothing_mends_stands_with_its_verdict_only() -> None:
    lost = {name: finding(name, Status.NO_DATA, reason="not_measured: nobody did", min=1.0, remedy=remedy)
            for name, remedy in {"a_ratio": "", "b_ratio": "measure b"}.items()}  # fmt: skip
    run = cpu_run(verdicts=(verdict("p", Decision.INCONCLUSIVE, 0, tuple(lost.values())),))
    gates, missing = screen(run).split("Not measured:")
    assert "a, b: nobody did" in gates
    assert "b: nobody did; mend: measure b" in missing and "a: nobody did" not in missing


# --- colour and streams


def test_colour_only_repeats_what_the_words_say() -> None:
    coloured = screen(cpu_run(), colour=True)
    assert "\x1b[" in coloured
    plain = "\n".join(line.rstrip() for line in ANSI.sub("", coloured).splitlines()) + "\n"
    assert plain == screen(cpu_run())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_colour_without_a_terminal_or_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert is_colourful(Terminal())
    assert not is_colourful(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_colourful(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not is_colourful(Terminal())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_any_encoding_takes_it(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    emit(screen(cpu_run(node=Node(hostname="host-漢-é", fingerprint=""))))
    assert b"NO-GO distributed-training" in raw.getvalue()


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = (
        "from bench.cli.output import emit; from bench.show.terminal.screen import render; "
        "from tests.show.terminal.sample import cpu_run; emit(render(cpu_run()))"
    )
    read, write = os.pipe()
    os.close(read)
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, cwd=root, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_module_alone_does_not_import_rich() -> None:
    modules = "bench.show.terminal.screen, bench.show.terminal.lineage, bench.show.catalog"
    script = f"import sys, {modules}; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout == "False\n", done.stderr


# --- hostile text

EVIL = "\x1b[2J\x1b[1;1H[/oops][red]GO\u202e\nGO p, score 100\x9b1m"


@pytest.mark.parametrize("colour", [False, True])
def test_a_hostile_name_neither_writes_on_the_screen_nor_adds_a_line(colour: bool) -> None:
    evil = finding(
        "a_ratio", Status.FAIL, measurement("a_ratio", 0.5, stand_in=EVIL), max=0.1, labels={"path": EVIL},
        reason=f"invalid: {EVIL}", remedy=EVIL,
    )  # fmt: skip
    run = cpu_run(
        node=Node(hostname=EVIL, fingerprint=EVIL, facts={"gpus": [EVIL]}),
        results=(
            ProbeResult(probe="a", outcome=Outcome.FAILED, reason=EVIL, remedy=EVIL, warnings=(EVIL,)),
            ProbeResult(probe="b", outcome=Outcome.OK, measurements=(measurement("b_ratio", 1.0, stand_in=EVIL),)),
        ),
        verdicts=(verdict(EVIL, Decision.NO_GO, 0, (evil, evil.model_copy(update={"status": Status.NO_DATA}))),),
        replay_of=EVIL,
        started_at=EVIL,
    )
    run = run.model_copy(update={"attribution": cpu_run().attribution.model_copy(update={"explanation": EVIL})})  # type: ignore[union-attr]
    text = screen(run, colour=colour, descriptions={EVIL: EVIL})
    assert "[/oops][red]GO" in text
    plain = ANSI.sub("", text) if colour else text
    assert all(line.isprintable() or not line for line in plain.split("\n"))
    assert "\x1b[2J" not in text
    assert not any(line.startswith("GO") for line in plain.splitlines())


@settings(max_examples=60, deadline=None)
@given(evil=st.text(min_size=1, max_size=40))
def test_no_host_name_stops_the_screen(evil: str) -> None:
    text = screen(cpu_run(node=Node(hostname=evil, fingerprint="")), colour=True)
    assert "NO-GO" in text


def test_a_score_says_what_it_stands_on() -> None:
    """A node that lacked a peer for one gate of eight read 0, and nothing else."""
    found = verdict("training", Decision.INCONCLUSIVE, 0.0, ())
    known = found.model_copy(update={"required": 8, "measured": 7, "weakest_measured_score": 83.29})
    assert scored(known) == "0 (7 of 8 measured, weakest 83.2)"
    assert scored(known.model_copy(update={"measured": 0, "weakest_measured_score": None})) == "0 (0 of 8 measured)"
    assert scored(found) == "0"
    assert "score 0 (7 of 8 measured, weakest 83.2)" in " ".join(screen(cpu_run(verdicts=(known,))).split())


def test_a_gate_that_does_not_ask_this_node_stands_with_all_gates_only() -> None:
    reason = "not_applicable: this node has no RDMA"
    gate = finding("rdma_write_bytes_per_second", Status.NO_DATA, required=False, reason=reason, min=1e9)
    one = cpu_run(verdicts=(verdict("training", Decision.INCONCLUSIVE, 0.0, (gate,)),))
    assert "no RDMA" not in screen(one)
    assert "no RDMA" in screen(one, all_gates=True)


def test_for_how_many_accelerators_it_is_enough_stands_below_the_gate() -> None:
    ratio = measurement("storage_headroom_ratio", 1.1)
    gate = finding(ratio.metric, Status.FAIL, ratio, reason="enough for 0.9 of 8 accelerators", min=8.88)
    assert "enough for 0.9 of 8 accelerators" in screen(
        cpu_run(verdicts=(verdict("t", Decision.NO_GO, 12.0, (gate,)),))
    )
