"""``--help`` of every command: examples one a line, with options that exist; completion of commands and formats."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import typer

from bench.cli.app import command_line, help_text
from bench.show.export import FORMATS
from tests.cli.bench import bench


def commands(group: typer.Typer, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [(*before, str(c.name or getattr(c.callback, "__name__", ""))) for c in group.registered_commands]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        found += commands(inner.typer_instance, (*before, str(inner.name)))
    return found


@pytest.mark.parametrize("command", commands(command_line()), ids=" ".join)
def test_help_shows_examples_that_would_be_accepted(command: tuple[str, ...], tmp_path: Path) -> None:
    done = bench(*command, "--help", cwd=tmp_path, env={"COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert done.stdout.count("Exit status: ") == 1
    examples = [
        line.strip()
        for line in lines[lines.index("  Examples:") + 1 :]
        if re.match(r"\s+(?:[A-Z_]+=\S+ )*bench ", line)
    ]
    assert examples
    for example in examples:
        words = shlex.split(re.split(r"\s[|>]", example)[0])
        words = words[words.index("bench") + 1 :]
        assert tuple(words[: len(command)]) == command
        options = [word for word in words if re.match(r"--?[a-z]", word)]
        assert [option for option in options if not re.search(rf"(?<!\S){option}\b", done.stdout)] == []


def test_each_example_has_its_line() -> None:
    text = help_text("Exit status: 0.\n\n    Examples:  bench a    bench b\n               --c d    X=1 bench e\n    ")
    assert text == "Exit status: 0.\n\n\b\nExamples:\n  bench a\n  bench b --c d\n  X=1 bench e"
    usual = "Exit status: 0, or 2 and one line that says why it could not be done."
    assert help_text("No more than this.") == f"No more than this.\n\n{usual}"


def completed(words: str, folder: Path) -> list[str]:
    """What bash would be offered."""
    env = {**os.environ, "_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return bench(cwd=folder, env=env).stdout.split()


def test_completion_knows_commands_options_and_formats(tmp_path: Path) -> None:
    assert {"run", "gate", "report", "export", "fleet"} <= set(completed("bench ", tmp_path))
    assert "--storage" in completed("bench run --s", tmp_path)
    assert set(completed("bench export --format ", tmp_path)) >= set(FORMATS)
