"""The man page names all that stands, and the completion files complete in a real shell."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.generated import ROOT
from tests.golden.manual import COMPLETION, MAN, NAMES
from tests.golden.standing import GOES, recorded

PAGE = (ROOT / MAN / "bench.1").read_text(encoding="utf-8").replace(r"\-", "-")


@pytest.mark.parametrize("command", [command for command in recorded()["commands"] if command and command not in GOES])
def test_the_page_names_the_command_and_each_of_its_options(command: str) -> None:
    _, found, section = PAGE.partition(f'.SS "bench {command}'.rstrip())
    assert found
    own = section.partition("\n.SS ")[0]
    hidden = {"--confirms", "--help", "-h"}
    options = [name for name in recorded()["commands"][command] if name.startswith("-") and name not in hidden]
    assert [name for name in options if rf"\fB{name}\fR" not in own] == []


@pytest.mark.parametrize("variable", ["BENCH_RESULTS", "BENCH_PROFILE", "BENCH_STORAGE", "NO_COLOR", "CLICOLOR_FORCE"])
def test_the_page_names_what_the_environment_may_say(variable: str) -> None:
    assert rf"\fB{variable}\fR" in PAGE


@pytest.mark.parametrize("status", ["0", "1", "2", "3", "130", "143"])
def test_the_page_tells_every_exit_status(status: str) -> None:
    assert rf"\fB{status}\fR" in PAGE.partition(".SH EXIT STATUS")[2].partition(".SH")[0]


def test_no_line_of_the_page_is_a_request_by_accident() -> None:
    known = {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".nf", ".fi"}
    assert {line.split(" ")[0] for line in PAGE.splitlines() if line[:1] in (".", "'")} <= known


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Both names of the command on the path."""
    for name in NAMES:
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bench "$@"\n')
        script.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.parametrize("name", NAMES)
def test_bash_completes_by_the_file(name: str, path: str) -> None:
    function = f"_{name.replace('-', '_')}_completion"
    script = (
        f"source {shlex.quote(str(ROOT / COMPLETION / name))}; complete -p {name} >&2;"
        f"COMP_WORDS=({name} run --outp); COMP_CWORD=2; {function} {name}; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["--output"]


@pytest.mark.parametrize("name", NAMES)
def test_zsh_completes_by_the_file_at_the_first_tab(name: str, path: str, tmp_path: Path) -> None:
    """As where the wheel lies on zsh's own path: the file is not loaded before the first TAB."""
    script = (
        "zmodload zsh/zpty; zpty it zsh -f -i;"
        f"zpty -w it {shlex.quote(f'fpath=({shlex.quote(str(ROOT / COMPLETION))} $fpath)')};"
        "zpty -w it 'autoload -Uz compinit; compinit -u -D; echo ready to complete' $'\\n';"
        "zpty -r -m it text $'*\\nready to complete*'; echo $text >&2;"
        f"zpty -w -n it $'{name} run --outp\\t'; zpty -r -m it text '*--output*'; zpty -d it"
    )
    env = {**os.environ, "PATH": path, "HOME": str(tmp_path), "TERM": "xterm"}
    subprocess.run(["zsh", "-f", "-c", script], env=env, check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("name", NAMES)
def test_fish_completes_by_the_file(name: str, path: str, tmp_path: Path) -> None:
    script = f"source {shlex.quote(str(ROOT / COMPLETION / f'{name}.fish'))}; complete -C '{name} run --outp'"
    env = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
    done = subprocess.run(["fish", "-c", script], env=env, capture_output=True, text=True, check=True, cwd=ROOT)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["--output"]
