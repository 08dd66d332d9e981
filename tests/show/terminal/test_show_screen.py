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
from rich.console import Console

from bench.cli.output import emit
from bench.model import Decision, Finding, Measurement, Node, Outcome, ProbeResult, Run, Status
from bench.show.matrix import Matrix
from bench.show.terminal.console import is_colourful
from bench.show.terminal.screen import Screen, render
from bench.show.text import cells
from bench.show.wording import margin, quantity, score, scored, title
from tests.show.runs import CATALOG, SHOWN, no_gpu, two_of_each
from tests.show.terminal.golden_screens import FOLDER, screens
from tests.show.terminal.sample import READ, SEQUENTIAL, cpu_run, finding, measurement, verdict

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def screen(run: Run, width: int = 80, **options: Any) -> str:
    return render(run, CATALOG.probes, width=width, **{"colour": False, "ascii_only": False, **options})


def told(run: Run, width: int = 100, **options: Any) -> str:
    """The screen as one line: where it breaks is not what counts."""
    return " ".join(screen(run, width, **options).split())


@pytest.mark.parametrize("name", screens())
def test_the_screen_is_the_golden_one(name: str) -> None:
    assert screens()[name] == (FOLDER / name).read_text(encoding="utf-8"), (
        "python -m tests.show.terminal.golden_screens"
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
@pytest.mark.parametrize("name", SHOWN)
def test_no_line_is_wider_than_the_terminal_and_every_verdict_is_there(name: str, width: int) -> None:
    run = SHOWN[name]()
    for all_gates in (False, True):
        text = screen(run, width, all_gates=all_gates)
        assert max(map(cells, text.splitlines())) <= width
        for found in run.verdicts:
            assert re.search(rf"{found.decision.value}  {found.profile}|{found.profile} +{found.decision.value} ", text)


def test_without_a_gpu_a_quick_run_is_one_screen_in_which_a_line_says_so() -> None:
    lines = screen(no_gpu(), 100).splitlines()
    assert len(lines) <= 45
    assert lines[1].startswith("no GPU: the CPU stood in") and "no peer: the loopback stood in" in lines[1]
    assert any(re.fullmatch(r"  storage write +2\.52 GB/s \(.*\) +≥ 1\.07 GB/s +ok +· +·", line) for line in lines)
    assert any(re.fullmatch(r"  TCP throughput +2\.23 GB/s loopback +≥ 6\.25 GB/s +- +· +·", line) for line in lines)


TOKEN = re.compile(r"\bg\d+\b")
FATES = st.tuples(
    st.sampled_from(list(Status)), st.booleans(), st.booleans(), st.floats(0, 1e12),
    st.sampled_from(["probe_skipped: not_asked_for: x", "probe_failed: tool_failed: it fell over", "invalid: busy",
                     "stand_in: cpu", "not_measured: nobody", "not_applicable: no RDMA", "probe_failed: no_gpu: x"]),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    fates=st.lists(st.tuples(FATES, st.sets(st.integers(0, 3), min_size=1)), min_size=1, max_size=12),
    width=st.integers(40, 160), long=st.booleans(), all_gates=st.booleans(),
)  # fmt: skip
def test_any_run_has_each_gate_once_and_fits(fates: list[Any], width: int, long: bool, all_gates: bool) -> None:
    """Whichever profiles ask and whatever became of it: a row, or among what was not measured, or among those counted
    that do not ask this node.
    """
    profiles: list[list[Finding]] = [[] for _ in range(4)]
    named, counted = [], 0
    for at, ((status, required, figure, value, reason), asking) in enumerate(fates):
        metric = f"g{at}{'_long' * 12 if long else ''}_bytes_per_second"
        found = measurement(metric, value, path="/data") if figure or status is not Status.NO_DATA else None
        gate = finding(metric, status, found, min=1.0, required=required, reason=reason, stand_in=None)
        for profile in asking:
            profiles[profile].append(gate)
        if found is None and reason.startswith("not_applicable") and not all_gates:
            counted += 1
        else:
            named.append(f"g{at}")
    judged = [verdict(f"profile-{at}", Decision.NO_GO, 0, tuple(gates)) for at, gates in enumerate(profiles)]
    run = cpu_run(results=(), verdicts=tuple(judged))
    assert max(map(cells, screen(run, width, all_gates=all_gates).splitlines())) <= width
    console, parts = Console(file=io.StringIO(), width=width), Screen(Matrix(run), width, all_gates=all_gates)
    console.print(*parts.gates(), *parts.missing())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert sorted(TOKEN.findall(text)) == sorted(named)
    assert (f"not asked of this node: {counted} gate" in " ".join(text.split())) == bool(counted)


def test_every_stand_in_is_labelled_wherever_it_took_part() -> None:
    for all_gates in (False, True):
        text = told(cpu_run(), 160, all_gates=all_gates)
        assert "time between tokens p50 21.7 ms cpu (20.6 to 22.8)" in text
        assert "waiting for storage 66 % emulated (62.7 to 69.3)" in text
        assert "waiting for data 71 % emulated" in text
        assert "TCP throughput 2.2 GB/s loopback" in text
        assert "an emulated accelerator stood in for a real one" in text


def test_what_was_not_measured_is_named_once_with_its_cause_and_what_mends_it() -> None:
    tool = ProbeResult(
        probe="storage",
        outcome=Outcome.UNSUPPORTED,
        reason="tool_missing: fio is not installed",
        remedy="apt install fio",
    )
    reason = "probe_unsupported: tool_missing: fio is not installed"
    gate = finding(READ.metric, Status.NO_DATA, labels=SEQUENTIAL, min=1.0, reason=reason, remedy=tool.remedy)
    run = cpu_run(results=(tool,), verdicts=(verdict("p", Decision.INCONCLUSIVE, 0, (gate,)),))
    text = told(run)
    assert "Not measured unsupported: fio is not installed: storage read fix: apt install fio" in text
    assert text.count("fio is not installed") == 1
    assert "bench doctor says what is missing here" in text


def test_all_gates_has_a_line_for_each_and_no_list() -> None:
    text = screen(cpu_run(), 100, all_gates=True)
    assert "Not measured" not in text
    assert re.search(r"throttled +needs a GPU +≤ 1 % +- +- +·", text)


def test_notes_are_few_unless_all_are_wanted() -> None:
    noisy = ProbeResult(
        probe="a", outcome=Outcome.OK, measurements=(READ,), warnings=tuple(f"doubt {n}" for n in range(9))
    )
    run = cpu_run(results=(noisy,))
    assert "Note: a: doubt 0 Note: a: doubt 1 7 more notes: --all-gates" in told(run) and "doubt 2" not in told(run)
    assert "doubt 8" in told(run, all_gates=True)


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_a_note_that_is_shown_is_whole(width: int) -> None:
    long = " ".join(f"word{n}" for n in range(40))
    noisy = ProbeResult(probe="a", outcome=Outcome.OK, measurements=(READ,), warnings=(long, "short"))
    text = screen(cpu_run(results=(noisy,)), width)
    assert long in " ".join(text.split()) and "1 more note: --all-gates" in text and "..." not in text
    assert max(map(len, text.splitlines())) <= width


def test_a_run_that_is_not_judged_says_so() -> None:
    assert "Not judged yet" in told(cpu_run(verdicts=(), attribution=None))


def test_a_command_that_is_too_long_can_be_copied_from_two_lines() -> None:
    text = screen(two_of_each(), 60)
    start = text.index("  1. bench")
    command = text[start + 5 : text.index("measures", start)]
    assert " \\\n" in command
    joined = command.replace("\\\n", " ").split()
    assert " ".join(joined) == Matrix(two_of_each(), CATALOG.probes).steps[0].command


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize(
    "path",
    [
        "/mnt/my training data/of this  year", "/mnt/" + "a-long-name/" * 9, "/mnt/" + "x" * 250,
        "/mnt/it's \"$HOME\" `x`",
        "/mnt/new\nline\ttab", "/mnt/\u200bhidden \xa0 \u202e", "/数据/" + "训练集/" * 20, "/mnt/back\\slash\n'",
    ],
)  # fmt: skip
def test_a_shell_reads_each_next_command_as_it_was_meant_however_wide_the_screen(path: str, width: int) -> None:
    """A path that was broken over two lines, or within its quotes, was another path."""
    run = two_of_each()
    run = run.model_copy(update={"request": run.request.model_copy(update={"storage": (path, "/mnt/scratch")})})
    start, read = re.compile(r"(?m)^  \d\. (bench(?:.*\\\n)*.*)$"), 'bench() { printf "%s\\0" "$@"; echo; }\n'
    commands = start.findall(screen(run, width))
    assert len(commands) == len(Matrix(run, CATALOG.probes).steps)
    script = read + "\n".join(commands)
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    typed = [words.split("\0") for words in done.stdout.decode().split("\0\n")]
    named = [[words[at + 1] for at, word in enumerate(words) if word == "--storage"] for words in typed]
    assert [path, "/mnt/scratch"] in named and all(found in ([], [path, "/mnt/scratch"]) for found in named)


def test_it_can_be_drawn_into_a_picture() -> None:
    console = Console(record=True, file=io.StringIO(), width=100)
    console.print(Screen(Matrix(no_gpu(), CATALOG.probes), 100).whole())
    assert "accelerators&#160;fed" in console.export_svg(title="bench run")


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
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CLICOLOR", "0")
    assert not is_colourful(Terminal())


def test_colour_can_be_forced_and_no_color_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    assert is_colourful(io.StringIO())
    assert "\x1b[" in render(cpu_run())
    monkeypatch.setenv("CLICOLOR_FORCE", "0")
    assert not is_colourful(io.StringIO())
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_colourful(io.StringIO())
    assert "\x1b[" not in render(cpu_run())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_any_encoding_takes_it(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    emit(screen(cpu_run(node=Node(hostname="host-漢-é", fingerprint=""))))
    assert b"distributed-training  NO-GO" in raw.getvalue()


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
    text = screen(run, colour=colour)
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
    assert "7 of 8 measured, weakest 83.2" in told(cpu_run(verdicts=(known,)))


def test_a_gate_that_does_not_ask_this_node_is_listed_with_why() -> None:
    reason = "not_applicable: this node has no RDMA"
    gate = finding("rdma_write_bytes_per_second", Status.NO_DATA, required=False, reason=reason, min=1e9)
    one = cpu_run(results=(), verdicts=(verdict("training", Decision.INCONCLUSIVE, 0.0, (gate,)),))
    assert "Not measured not asked of this node: 1 gate (this node has no RDMA)" in told(one)
    assert "not asked (this node has no RDMA)" in told(one, all_gates=True)
    assert "no gate decides" in told(one)
