"""From `bench run --data` to the verdict, and whether the data is still what the run measured."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bench.measure.probe import Failed, Unsupported
from bench.model import Run
from probes.data.events import Drawn, Ended, Event, Refused, line, read
from probes.data.parse import audited, lines, parse
from probes.data.plan import sets as data_sets
from probes.data.plan import there
from tests import forks
from tests.probes.data import sets

ROOT = Path(__file__).parents[3]


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return forks.run("bench", [str(word) for word in words], env=os.environ)


@pytest.mark.slow
def test_a_data_set_is_judged_where_it_was_named_and_known_again(tmp_path: Path) -> None:
    data, results = tmp_path / "my data", tmp_path / "results"
    sets.make("csv", data, 200, 2)
    words = ("--probe", "data", "--effort", "quick", "--accelerator", "cpu", "--no-quiet-check", "--results", results)
    done = bench("run", *words, "--data", data, "--json", "--exit-zero")
    assert done.returncode == 0, done.stderr
    run = Run.model_validate_json(done.stdout)
    verdict = next(verdict for verdict in run.verdicts if verdict.profile == "data")
    assert (verdict.decision.value, verdict.required, verdict.measured) == ("GO", 2, 2)
    found = {m.metric: m for m in next(r for r in run.results if r.probe == "data").measurements}
    assert found["data_valid_ratio"].value == 0.99 and found["data_valid_ratio"].interval == (0.99, 0.99)
    assert found["data_documented_ratio"].value == 1.0 and found["data_samples"].value == 200
    (line,) = next(r for r in run.results if r.probe == "data").series
    assert (line.metric, sum(line.values)) == ("data_samples_per_second", 200), "a point a second"
    sources = next(r for r in run.results if r.probe == "data").sources
    assert {one.kind.partition("_")[2]: one.sha256 for one in sources}.items() <= found["data_info"].labels.items()
    explained = bench("explain", run.id, "data_valid_ratio", "--results", results).stdout
    assert len(sources) >= 2 and all(one.sha256 in explained for one in sources)

    gate = ("gate", "--results", results, "--profile", "data", "--quiet")
    assert bench(*gate).returncode == 0
    (tmp_path / "link").symlink_to(data)
    for spelled in (data, tmp_path / "link", tmp_path / "results" / ".." / "my data"):
        assert bench(*gate, "--data", spelled).returncode == 0
    (data / "all.csv").write_text((data / "all.csv").read_text().replace("text", "test", 1))
    changed = bench(*gate, "--data", data)
    assert changed.returncode == 3 and "what is in its files" in changed.stderr
    (data / "all.csv").write_text((data / "all.csv").read_text().replace("test", "text", 1))
    assert bench(*gate, "--data", data).returncode == 0, "as it was"
    (data / "added.csv").write_text("x,y\n1,2\n")
    added = bench(*gate, "--data", data)
    (data / "added.csv").unlink()
    (data / "all.csv").rename(data / "other.csv")
    renamed = bench(*gate, "--data", data)
    (data / "other.csv").rename(data / "all.csv")
    for one in (added, renamed):
        assert one.returncode == 3 and "its files or their sizes" in one.stderr
    other = bench(*gate, "--data", tmp_path)
    assert other.returncode == 2 and "did not measure" in other.stderr


@pytest.mark.slow
def test_two_sets_of_which_one_has_no_description_and_one_cannot_be_used(tmp_path: Path) -> None:
    sets.make("arrays", tmp_path / "bare", 20, 0)
    sets.make("csv", tmp_path / "whole", 50, 0)
    (tmp_path / "none").mkdir()
    words = ("--probe", "data", "--effort", "quick", "--accelerator", "cpu", "--no-quiet-check", "--results", tmp_path)
    named = [word for name in ("bare", "whole", "none") for word in ("--data", tmp_path / name)]
    done = bench("run", *words, *named, "--json", "--exit-zero")
    result = next(r for r in Run.model_validate_json(done.stdout).results if r.probe == "data")
    assert result.outcome.value == "ok", result.reason
    shares = {m.labels["data"]: m.value for m in result.measurements if m.metric == "data_documented_ratio"}
    assert shares == {f"{tmp_path / 'bare'}": 0.0, f"{tmp_path / 'whole'}": 1.0}
    assert {one.kind for one in result.sources if one.name == f"{tmp_path / 'bare'}"} == {
        "data_inventory", "data_content"}  # fmt: skip
    assert any("none" in text and "no file of a known format" in text for text in result.warnings)


@pytest.mark.slow
def test_a_run_without_data_does_not_judge_it(tmp_path: Path) -> None:
    done = bench("run", "--probe", "host", "--effort", "quick", "--results", tmp_path, "--json", "--exit-zero")
    assert "data" not in {verdict.profile for verdict in Run.model_validate_json(done.stdout).verdicts}


def test_a_data_set_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = bench("run", "--data", tmp_path / "gone", "--results", tmp_path)
    assert done.returncode == 2 and "gone is neither a directory nor a description" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("name", "said"), [("", "--data is empty"), ("b\udcff", "no UTF-8")])
def test_what_no_run_could_name_is_wrong_usage(name: str, said: str, tmp_path: Path) -> None:
    """An empty variable surveyed the working directory, a lone byte lost the run."""
    word = str(tmp_path / name) if name else ""
    (tmp_path / name).mkdir(exist_ok=True)
    done = bench("run", "--data", word, "--results", tmp_path)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_file_of_the_set_is_no_description_of_it(tmp_path: Path) -> None:
    sets.make("csv", tmp_path, 5, 0)
    with pytest.raises(ValueError, match="neither a directory nor a description"):
        there((str(tmp_path / "all.csv"),))
    there((str(tmp_path), str(tmp_path / "datapackage.json")))


@pytest.mark.parametrize("text", ["[", "[]", "[1]", '["a", ""]'])
def test_a_stored_request_that_names_no_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        there(data_sets(text))


def test_events_survive_their_line() -> None:
    events: list[Event] = [Drawn("a\n.csv", "byte 7", 3, "schema: x", None), Ended("clear", 2000, 0)]
    assert read("\n".join(map(line, events))) == events


def test_samples_a_second_stand_on_the_clock_of_the_run() -> None:
    """A survey that began 7.5 s after the watchers looked at two samples, at nothing for a second, and at a third."""
    looked = [Drawn("a", "", 1, None, None, seconds=at) for at in (0.6, 0.7, 2.6)]
    (found,) = lines([*looked, Ended("whole", 3, 0, began=1007.5)], "/data", clock=1000.0)
    assert (found.seconds, found.values) == ((8.5, 9.5, 10.5), (2.0, 0.0, 1.0))
    assert lines([*looked, Ended("whole", 3, 0)], "/data", clock=1000.0) == [], "an older recording"


def test_a_share_is_never_made_of_nothing() -> None:
    with pytest.raises(Failed):
        parse([Ended("time", 2000, 0)], "/data")
    with pytest.raises(Failed):
        parse([Drawn("a", "", 1, None, None)], "/data")
    with pytest.raises(Unsupported):
        parse([Refused("empty", "nothing here")], "/data")


@pytest.mark.parametrize(
    ("rules", "gap"),
    [
        (None, []), ("No rules\n", [1.0]), ("-w /data -p wa -k x\n", [1.0]), ("-w /data/set -p rwa\n", [0.0]),
        ("-a always,exit -F arch=b64 -S openat -F dir=/data -F perm=r\n", [0.0]), ("-w /data/se -p r\n", [1.0]),
        ("-a always,exit -S all -F dir=/data/set\n", [0.0]),
    ],
)  # fmt: skip
def test_reads_are_audited_where_a_rule_says_so(rules: str | None, gap: list[float]) -> None:
    assert [m.value for m in audited(rules, "/data/set")] == gap


def test_faults_are_all_counted_and_a_hundred_are_named() -> None:
    drawn = [Drawn(f"{n}.jpg", "", 1, "empty: the file is empty" if n % 2 else None, None) for n in range(500)]
    found = parse([*drawn, Ended("clear", 2000, 0)], "/data")
    assert [m.value for m in found if m.metric == "data_faults"] == [250]
    assert len([m for m in found if m.metric == "data_fault_info"]) == 100
    share = next(m for m in found if m.metric == "data_valid_ratio")
    assert share.value == 0.5 and share.interval[0] < 0.45 and share.interval[1] > 0.55
    assert json.dumps([m.model_dump() for m in found])


@pytest.mark.slow
def test_a_set_that_is_mostly_of_other_formats_is_not_known(tmp_path: Path) -> None:
    """Two sound lines beside fifty archives that nothing here reads were 100 % valid, and GO."""
    data = tmp_path / "data"
    sets.make("lines", data, 40, 0)
    words = ("run", "--probe", "data", "--effort", "quick", "--accelerator", "cpu", "--no-quiet-check", "--results",
             tmp_path / "results", "--data", data, "--profile", "data")  # fmt: skip
    (data / "few.bin").write_bytes(bytes(100))
    assert bench(*words).returncode == 0
    (tmp_path / "blob").write_bytes(bytes(1 << 20))
    (data / "most.mp4").symlink_to(tmp_path / "blob")
    done = bench(*words)
    assert done.returncode == 3 and "--wait-quiet" not in done.stdout, done.stdout
    explained = bench("explain", "data_valid_ratio", "--results", tmp_path / "results").stdout
    assert "most of its bytes are in files that no decoder is known for" in " ".join(explained.split())
    (data / "as-line.jsonl").symlink_to(tmp_path / "blob")
    assert bench(*words).returncode == 0, "the same bytes under a name that is known: looked at, one broken of 41"
