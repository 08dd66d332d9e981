"""Every command in the documents is one that the command line takes, and what they print is what it prints.

A ``console`` block holds commands behind ``$`` with what they print; ``...`` stands for lines that are left out. It is
run where the recorded runs, nights and fleets lie, on the node ``node-17``; ``<!-- results: nights -->`` above it names
another store. All other commands, in blocks or between backticks, and those that measure, are read by the command line
and not run: they take a machine, hardware or a cluster, or write outside of a test's folder.
"""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from bench.cli.app import command_line
from bench.model import Code, Outcome
from bench.workflows.catalog import declared
from tests.golden.generated import ROOT
from tests.golden.manual import NAMES
from tests.golden.recorded import lay_out
from tests.golden.said import said

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: A list of pages, and what is about the code.
_NO_TASK = {"README.md", "architecture.md"}
_MEASURES = {"run", "peer", "doctor", "schedule"}
_BLOCK = re.compile(r"(?:<!-- results: (?P<results>\w+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.S)
_COMMAND = re.compile(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?(?:aiready-)?bench (?P<words>-{0,2}[a-z].*)")


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, text and store of each fenced block."""
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield found["kind"], found["text"], found["results"] or "results"


def named() -> list[tuple[str, str]]:
    """Each page with each `bench ...` command in it, in blocks and between backticks, without what it is piped into."""
    found: dict[tuple[str, str], None] = {}
    for page in PAGES:
        lines = [
            line
            for kind, text, _ in blocks(page)
            if kind != "python"
            for line in text.replace("\\\n", " ").splitlines()
        ]
        lines += [line[4:] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("    bench ")]
        lines += re.findall(r"`((?:aiready-)?bench [^`\n]+)`", page.read_text(encoding="utf-8"))
        for line in lines:
            if match := _COMMAND.match(line.strip().removeprefix("ExecStart=").removeprefix("ExecStopPost=-")):
                found[page.name, re.split(r"\s+[|>&;#]|\s2>|\s\|\|", match["words"])[0].rstrip(".,")] = None
    return list(found)


@pytest.mark.parametrize(("page", "words"), named(), ids=lambda text: str(text)[:60])
def test_a_command_in_the_documents_is_taken(page: str, words: str) -> None:
    rest, command = shlex.split(words.replace("...", "")), typer.main.get_command(command_line())
    while (inner := getattr(command, "commands", None)) and rest and not rest[0].startswith("-"):
        assert rest[0] in inner, f"{page}: bench {words}: no such command"
        command = inner[rest.pop(0)]
    assert parsed(command, rest) is None


def parsed(command: Any, words: list[str]) -> str | None:
    """Why the words are wrong usage of the command; None where they are not. An argument may be left out."""
    parameters = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    named = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    if unknown := [word for word in named if word not in parameters and word not in ("--help", "-h")]:
        return f"no such option: {unknown}"
    free = list(words)
    for word in named:
        option, at = parameters.get(word), next(i for i, one in enumerate(free) if one.partition("=")[0] == word)
        takes = option is not None and not option.is_flag and "=" not in free[at]
        if takes and at + 1 >= len(free) and len(words) > 1:
            return f"{word} needs a value"
        del free[at : at + 1 + takes]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    most = sum(99 if p.nargs == -1 else 1 for p in arguments)
    return None if len(free) <= most else f"too many words: {free}"


def test_the_reader_of_commands_finds_what_is_wrong() -> None:
    gate = typer.main.get_command(command_line()).commands["gate"]  # type: ignore[attr-defined]
    assert parsed(gate, ["3f9a", "--profile", "mine.toml", "--json"]) is None
    assert parsed(gate, ["--no-such"]) is not None
    assert parsed(gate, ["a", "b"]) is not None
    assert parsed(gate, ["--json", "--profile"]) is not None


# --- what they print


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("documents")
    lay_out(where)
    return where


def printed() -> list[tuple[str, str, str, list[str]]]:
    """Page, store, command and the lines below it, of every console block."""
    found = []
    for page in PAGES:
        for kind, text, results in blocks(page):
            for part in re.split(r"^\$ ", text, flags=re.M)[1:] if kind == "console" else ():
                command, *lines = part.replace("\\\n", " ").rstrip("\n").split("\n")
                if not _MEASURES & set(command.split()[1:3]):
                    found.append((page.name, results, command, lines))
    return found


def missing(lines: list[str], output: list[str]) -> str | None:
    """The first of the lines that the output does not hold in its place.

    ``...`` lets any number of lines pass, and at the end of a line what is left of it.
    """
    at, loose = 0, False
    for line in (line.rstrip() for line in lines):
        if line == "...":
            loose = True
            continue
        begins, cut = line.removesuffix(" ..."), line.endswith(" ...")
        left = output[at:] if loose else output[at : at + 1]
        found = [i for i, one in enumerate(left) if one == line or (cut and one.startswith(begins))]
        if not found:
            return line
        at, loose = at + found[0] + 1, False
    return None if loose or at == len(output) else "(more than is shown)"


def test_a_line_that_is_not_printed_is_found() -> None:
    assert missing(["a", "...", "d"], ["a", "b", "c", "d"]) is None
    assert missing(["a", "d"], ["a", "b", "d"]) == "d"
    assert missing(["...", "d", "b", "..."], ["b", "d", "e"]) == "b"
    assert missing(["a"], ["a", "b"]) == "(more than is shown)"
    assert missing(["a ..."], ["a (1 of 2)"]) is None
    assert missing(["b ..."], ["a (1 of 2)"]) == "b ..."


@pytest.mark.parametrize(("page", "results", "command", "lines"), printed(), ids=lambda one: str(one)[:60])
def test_what_a_command_prints_is_what_the_page_shows(
    page: str, results: str, command: str, lines: list[str], recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-17")
    words = shlex.split(command, comments=True)
    assert words[0] in NAMES, f"{page}: only bench is run: {command}"
    root = ["--results", results] if results != "results" else []
    answer = said([*words[1:], *root], recorded, recorded)
    output = [line.rstrip() for line in (answer.text() or answer.err).splitlines()]
    assert missing(lines, output) is None, f"{page}: bench {command} printed:\n" + "\n".join(output[:80])


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in _NO_TASK], ids=lambda page: page.name)
def test_a_page_begins_with_a_command(page: Path) -> None:
    head = page.read_text(encoding="utf-8").partition("```")
    words = len(re.sub(r"<!--.*?-->", "", head[0].partition("\n")[2]).split())
    assert words <= 60, f"{words} words come before the first command"
    assert "bench" in head[2].partition("```")[0]


# --- what must stand somewhere


def rows(page: str) -> set[str]:
    """All that stands between backticks in the first column of the page's tables."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return {word for line in lines if line.startswith("| `") for word in re.findall(r"`([^`]+)`", line.split(" | ")[0])}


def test_every_reason_and_outcome_is_explained() -> None:
    assert {*Code, *Outcome} - rows("troubleshooting.md") == set()


def test_every_metric_is_explained() -> None:
    assert set(declared().metrics) - rows("numbers.md") == set()
