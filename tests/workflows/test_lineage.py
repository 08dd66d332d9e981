"""A figure leads to the lines that it was read from: of lines whose meaning is known, and of every recorded run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.measure.probe import Completed, Context, Failed, Probe
from bench.measure.recording import Recorder
from bench.model import Code, Effort, Measurement, Metric, Outcome, ProbeResult, Run
from bench.show.matrix import Matrix
from bench.show.raw_output import Lines, RawOutput
from bench.show.terminal.lineage import gate_paths, named
from bench.store.documents import load
from bench.workflows.catalog import Catalog, declared
from bench.workflows.lineage import Tracer
from tests.cli.bench import document
from tests.golden.recorded import lay_out
from tests.golden.said import said
from tests.show.runs import SHOWN

METRIC = Metric(name="thing_seconds", help="A thing.", better="lower")


def traced(
    folder: Path, texts: Sequence[str], figure: Callable[[list[str]], float], stored: float | None = None
) -> list[Lines]:
    """The lines behind ``figure`` of a probe that reads these texts from one tool."""

    def measure(ctx: Context) -> list[Measurement]:
        said = [ctx.tools.run(["tool"], name="tool", timeout=1).stdout for _ in texts]
        value = figure(said)
        return [Measurement(metric=METRIC.name, value=value, interval=(value, value), samples=1)]

    recorder = Recorder(folder / "it.raw")
    for text in texts:
        recorder.keep("mine", "tool", Completed(("tool",), 0, text, "", 1.0))
    probe = Probe("mine", "It.", (METRIC,), {Effort.QUICK: 1.0}, measure=measure)
    value = figure(list(texts)) if stored is None else stored
    found = Measurement(metric=METRIC.name, value=value, interval=(value, value), samples=1)
    result = ProbeResult(probe="mine", outcome=Outcome.OK, measurements=(found,), evidence=recorder.evidence("mine"))
    run = Run.model_validate(document([], results=[])).model_copy(update={"results": (result,)})
    return Tracer(run, RawOutput(folder), Catalog((probe,)))(result, found)


def places(found: Sequence[Lines]) -> list[tuple[str, int, int]]:
    return [(Path(lines.file).name[:4], lines.first, lines.last) for lines in found]


def numbered(count: int) -> str:
    return "".join(f'{{"name": "n{number}", "value": {number + 0.5}}}\n' for number in range(1, count + 1))


def value(text: str, number: int) -> float:
    return float(json.loads(text.splitlines()[number - 1])["value"])


@pytest.mark.parametrize("number", [1, 2, 37, 64, 99, 100])
def test_the_one_line_of_a_hundred_is_found(tmp_path: Path, number: int) -> None:
    found = traced(tmp_path, [numbered(100), numbered(100)], lambda texts: value(texts[1], number))
    assert places(found) == [("0002", number, number)]
    assert found[0].text == f'{{"name": "n{number}", "value": {number + 0.5}}}'


def test_a_quotient_stands_on_both_its_lines_and_on_one_that_holds_both(tmp_path: Path) -> None:
    two = traced(tmp_path / "a", [numbered(9)], lambda texts: value(texts[0], 7) / value(texts[0], 3))
    assert places(two) == [("0001", 3, 3), ("0001", 7, 7)]
    rate = '{"a": 1}\n{"bytes": 4096, "seconds": 0.5}\n'

    def quotient(texts: list[str]) -> float:
        line = json.loads(texts[0].splitlines()[1])
        return float(line["bytes"] / line["seconds"])

    assert places(traced(tmp_path / "b", [rate], quotient)) == [("0001", 2, 2)]


def test_a_count_of_nothing_stands_on_its_zero(tmp_path: Path) -> None:
    text = '{\n"sent": 100,\n"lost": 0\n}\n'
    assert places(traced(tmp_path, [text], lambda texts: float(json.loads(texts[0])["lost"]))) == [("0001", 3, 3)]


def test_what_several_lines_say_only_together_is_a_range(tmp_path: Path) -> None:
    text = "".join(f'{{"value": {one}}}\n' for one in (1.5, 7.5, 7.5, 7.5, 7.5, 7.5, 9.5))

    def median(texts: list[str]) -> float:
        return sorted(value(texts[0], number) for number in range(1, 8))[3]

    (found,) = traced(tmp_path, [text], median)
    assert found.first < found.last
    assert 2 <= found.first <= 6


def test_a_quantile_stands_on_the_counts_that_move_it_where_one_more_of_each_does_not(tmp_path: Path) -> None:
    """Bounds in quotes are names, not numbers; 200 in each of 40 buckets and one more leave the p90 as it was."""
    text = "".join(f'"{10 * bound}": 200\n' for bound in range(1, 41))

    def p90(texts: list[str]) -> float:
        buckets = [line.split(": ") for line in texts[0].splitlines()]
        counts = [int(count) for _, count in buckets]
        reached = next(n for n in range(40) if sum(counts[: n + 1]) >= 0.9 * sum(counts))
        return float(json.loads(buckets[reached][0]))

    found = traced(tmp_path, [text], p90)
    assert found
    assert all(lines.text.startswith('"') for lines in found)


def test_a_line_that_cannot_be_changed_does_not_hide_the_one_that_counts(tmp_path: Path) -> None:
    def strict(texts: list[str]) -> float:
        if [value(texts[0], number) for number in (1, 5, 9)] != [1.5, 5.5, 9.5]:
            raise Failed(Code.TOOL_OUTPUT, "these must add up")
        return value(texts[0], 6)

    assert places(traced(tmp_path, [numbered(9)], strict)) == [("0001", 6, 6)]


def test_a_figure_that_this_version_reads_otherwise_has_no_line(tmp_path: Path) -> None:
    assert traced(tmp_path, [numbered(9)], lambda texts: value(texts[0], 6), stored=7.0) == []


def test_output_is_not_read_through_a_link(tmp_path: Path) -> None:
    def read(texts: list[str]) -> float:
        return value(texts[0], 2)

    assert traced(tmp_path / "a", [numbered(3)], read)
    folder = tmp_path / "a" / "it.raw"
    (folder / "0001-mine-tool.json").rename(tmp_path / "secret")
    (folder / "0001-mine-tool.json").symlink_to(tmp_path / "secret")
    raw = RawOutput(tmp_path / "a")
    assert raw.text("it.raw/0001-mine-tool.json") == ""
    assert raw.text("../secret") == ""


# --- recorded runs


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("recorded")
    lay_out(where)
    return where


#: What each figure is made of, by its formula: run, metric, labels, and the one thing that each of its lines says.
KNOWN: Sequence[tuple[str, str, Mapping[str, str], Callable[[float], Sequence[str]]]] = [
    ("feed", "starvation_ratio", {"component": "storage"},
     lambda _: ['"kind": "ready"', '"arm": "fetch", "turn": 1', '"arm": "fetch", "turn": 2']),
    ("feed", "starvation_ratio", {"component": "total"},
     lambda _: ['"kind": "ready"', '"arm": "storage", "turn": 1', '"arm": "storage", "turn": 2']),
    ("feed", "storage_read_bytes_per_second", {"pattern": "sequential", "queue_depth": "deep"},
     lambda value: [f'"bw_bytes" : {value:.0f},']),
    ("peer", "storage_write_bytes_per_second", {"pattern": "sequential", "queue_depth": "deep"},
     lambda value: [f'"bw_bytes" : {value:.0f},']),
    ("peer", "storage_read_latency_seconds", {"block_bytes": "131072", "statistic": "p99"},
     lambda value: [f'"99.000000" : {value * 1e9:.0f},']),
    ("peer", "network_jitter_seconds", {"direction": "send"}, lambda value: [f'"jitter_ms":\t{value * 1e3:.12f}'[:20]]),
    ("peer", "network_round_trip_seconds", {"state": "loaded", "statistic": "p99"}, lambda _: ['"kind":"packets"']),
    ("gpu", "accelerator_uncorrected_errors", {"device": "1"}, lambda _: ['"ecc_uncorrected": 3']),
]  # fmt: skip


@pytest.mark.parametrize(("name", "metric", "labels", "says"), KNOWN, ids=[f"{k[0]}-{k[1]}-{k[2]}" for k in KNOWN])
def test_a_recorded_figure_stands_on_the_lines_of_its_formula(
    recorded: Path, name: str, metric: str, labels: Mapping[str, str], says: Callable[[float], Sequence[str]]
) -> None:
    run, folder = stored(recorded, name)
    result, found = next(
        (result, m) for result in run.results for m in result.measurements
        if m.metric == metric and labels.items() <= m.labels.items()
    )  # fmt: skip
    lines = Tracer(run, RawOutput(folder), declared())(result, found)
    expected = says(found.value)
    assert len(lines) == len(expected)
    for one, part in zip(lines, expected, strict=True):
        assert one.first == one.last
        assert part in one.text
        assert (folder / one.file).read_text().split("\n")[one.first - 1].strip() == one.text


def stored(where: Path, name: str) -> tuple[Run, Path]:
    path = next((where / "results").rglob(f"*-{json.loads(document_of(name))['id']}.json"))
    return load(path), path.parent


def document_of(name: str) -> str:
    return (Path(__file__).parents[1] / "recorded" / "runs" / f"{name}.json").read_text(encoding="utf-8")


def explained(where: Path, *words: str) -> Any:
    return said(["explain", *words, "--results", "results"], where, where)


def test_the_gate_that_decided_is_explained_down_to_its_lines(recorded: Path) -> None:
    run, _ = stored(recorded, "feed")
    text = explained(recorded, run.id).text()
    assert "fail: waiting for storage" in text
    assert text.count("-feed-feed-0.json:") == 3
    assert "python -m probes" in text
    assert f"bench explain {run.id} --all" in text.splitlines()[-1]


@pytest.mark.parametrize(
    "words", [("starvation",), ("distributed-training",), ("starvation", "(storage)"), ("waiting for storage",)]
)
def test_a_gate_may_be_named_behind_its_run(recorded: Path, words: tuple[str, ...]) -> None:
    run, _ = stored(recorded, "feed")
    assert "fail: waiting for storage" in explained(recorded, run.id, *words).text()


@pytest.mark.parametrize("name", SHOWN)
def test_each_gate_and_column_is_known_by_the_name_that_the_screen_gives_it(name: str) -> None:
    paths, shown = gate_paths(SHOWN[name]()), Matrix(SHOWN[name]())
    for row in shown.rows:
        kinds = {(path.finding.metric, *path.finding.labels.items()) for path in named(paths, row.name)}
        assert kinds == {(row.finding.metric, *row.finding.labels.items())}, row.name
    for answer in shown.answers:
        assert {v.profile for v in named(paths, answer.column)[0].verdicts} >= {answer.profile}


def test_a_probe_on_the_screen_is_explained_by_how_it_ended(recorded: Path) -> None:
    run, _ = stored(recorded, "gpu")
    probe = next(r for r in run.results if r.probe == "host")
    assert f"probe       host: {probe.outcome.value}" in explained(recorded, run.id, "host").text()


def test_the_commands_below_name_the_run_as_it_was_named(recorded: Path) -> None:
    run, folder = stored(recorded, "feed")
    copy = recorded / "of another node.json"
    copy.write_bytes(next(folder.glob(f"*-{run.id}.json")).read_bytes())
    lines = explained(recorded, str(copy), "storage").text().splitlines()
    commands = [line.partition(": ")[2] for line in lines if ": bench explain " in line]
    assert len(commands) > 1 and lines[-1].endswith("--all")
    for command in commands:
        assert explained(recorded, *shlex.split(command)[2:]).status == 0, command


def test_a_slip_is_told_the_nearest_name(recorded: Path) -> None:
    run, _ = stored(recorded, "feed")
    answer = explained(recorded, run.id, "starvtion")
    assert answer.status == 2
    assert "nearest: starvation_ratio" in answer.err
    other = explained(recorded, run.id, "zzz")
    assert (other.status, other.out) == (2, b"") and "there are: " in other.err


def test_one_word_that_is_no_run_is_a_gate_of_the_newest(tmp_path: Path) -> None:
    answer = said(["explain", "starvation", "--results", str(tmp_path)], tmp_path, tmp_path)
    assert answer.status == 2
    assert "no run of this node is stored" in answer.err


@pytest.mark.parametrize("name", ["feed", "gpu"])
def test_all_gates_have_their_lines(recorded: Path, name: str) -> None:
    text = explained(recorded, stored(recorded, name)[0].id, "--all").text()
    assert len([line for line in text.splitlines() if ".json:" in line]) >= 8
