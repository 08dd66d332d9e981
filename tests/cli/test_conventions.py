"""What a command line is expected to do: tell its version, print one format alone, have a doctor for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import __version__
from bench.show.export import FORMATS
from tests.cli.bench import bench
from tests.golden.recorded import lay_out
from tests.golden.said import Said, said


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("recorded")
    lay_out(where)
    return where


def replayed(where: Path, *words: str) -> Said:
    raw = min((where / "results").rglob("*-a05c5b4f1e8e.raw"))
    return said(["run", "--replay", str(raw), "--results", "replayed", *words], where, where)


def test_a_run_is_printed_in_the_format_that_was_asked_for_and_nothing_else_is(recorded: Path) -> None:
    answer = replayed(recorded, "--output", "junit")
    assert answer.status == 1
    suites = ElementTree.fromstring(answer.out)
    assert suites.tag == "testsuites"
    assert "distributed-training" in answer.text()


def test_json_is_one_of_the_formats(recorded: Path) -> None:
    ours, theirs = (json.loads(replayed(recorded, *words).out) for words in (["--json"], ["--output", "json"]))
    assert {v["decision"] for v in ours["verdicts"]} == {v["decision"] for v in theirs["verdicts"]}
    assert ours["replay_of"] == theirs["replay_of"]


def test_the_screen_may_be_asked_for_by_name(recorded: Path) -> None:
    assert "Next" in replayed(recorded, "--output", "screen").text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--output", "junti"], "did you mean junit?"),
        (["--output", "none-such"], f"must be one of screen, {', '.join(FORMATS)}"),
        (["--json", "--output", "ctrf"], "give one of the two"),
    ],
)
def test_a_format_that_is_none_is_refused_before_anything_is_measured(
    words: list[str], told: str, tmp_path: Path
) -> None:
    answer = said(["run", *words, "--results", str(tmp_path / "runs")], tmp_path, tmp_path)
    assert (answer.status, answer.out) == (2, b"")
    assert told in answer.err
    assert not (tmp_path / "runs").exists()


def test_the_version_names_what_measures(tmp_path: Path) -> None:
    done = bench("--version", cwd=tmp_path)
    first, *others = done.stdout.splitlines()
    assert (done.returncode, first) == (0, f"aiready-bench {__version__}")
    assert {line.strip().partition(":")[0] for line in others} >= {"fio", "iperf3", "torch", "python", "NVIDIA driver"}


@pytest.mark.slow
def test_a_tool_that_hangs_does_not_hold_the_version_up(tmp_path: Path) -> None:
    tool = tmp_path / "fio"
    tool.write_text("#!/bin/sh\nsleep 100\n")
    tool.chmod(0o755)
    done = bench("--version", cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, timeout=60)
    assert done.returncode == 0
    assert "fio: not installed, or it does not answer" in done.stdout


def test_the_doctor_tells_programs_its_status_the_versions_and_each_check(tmp_path: Path) -> None:
    done = bench("doctor", "--json", "--results", tmp_path, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["status"] == done.returncode
    assert found["versions"]["bench"] == __version__
    assert {"name", "ok", "detail", "remedy"} == set(found["checks"][0])
    assert (found["status"] == 0) is all(check["ok"] for check in found["checks"])


@pytest.mark.parametrize("command", ["run", "gate", "doctor", "fleet run", "fleet join"])
def test_help_tells_the_exit_status(command: str, tmp_path: Path) -> None:
    assert "Exit status: 0 " in bench(*command.split(), "--help", cwd=tmp_path).stdout
