"""What a user has: commands with their options, probes, metrics, profiles, formats, as plain data.

``tests/golden/what_stands.json`` holds what stood when it was recorded. Nothing of it may go; more may come, and
``python -m tests.golden stands`` adds it. The options that single probes read are added by hand.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from bench.cli.app import command_line
from tests.golden.said import said

FILE = Path(__file__).with_name("what_stands.json")
#: `bench fleet member` gives way to the launchers' own transports.
GOES = ("fleet member",)
_GATE = ("metric", "labels", "min", "max", "required", "accept_stand_in")


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def standing() -> dict[str, Any]:
    """What stands now, in the form of the file, without the options that probes read."""
    listed = _asked("probes", "--json")
    return {
        "commands": dict(_commands(typer.main.get_command(command_line()))),
        "probes": {
            probe["probe"]: {
                metric["name"]: {name: metric[name] for name in ("unit", "better", "labels")}
                for metric in probe["metrics"]
            }
            for probe in listed
        },
        "profiles": {
            profile["name"]: [{name: gate[name] for name in _GATE} for gate in profile["gates"]]
            for profile in _asked("profiles", "--json")
        },
        "export formats": _choices("export", "-f", "none-such"),
        "fleet export formats": _choices("fleet", "export", ".", "-f", "none-such"),
        "efforts": _choices("run", "--effort", "none-such"),
    }


def add() -> None:
    """Write the file with what has come since. A metric, gate or option that is there already stays as it stood."""
    stood, now = recorded() if FILE.exists() else {}, standing()
    for command in GOES:
        now["commands"].pop(command, None)
    FILE.write_text(json.dumps(_joined(stood, now), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _joined(stood: Any, now: Any) -> Any:
    if isinstance(stood, dict) and isinstance(now, dict):
        return {name: _joined(stood.get(name), now.get(name)) for name in {**stood, **now}}
    if isinstance(stood, list) and isinstance(now, list):
        return [*stood, *(one for one in now if one not in stood)]
    return now if stood is None else stood


def _commands(command: Any, name: str = "") -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Each command that is no group, by its words: its options and arguments, each with what it can do."""
    yield (
        name,
        {
            word: does
            for param in command.params
            if not getattr(param, "hidden", False)
            for word, does in _parameters(param)
        },
    )
    for word, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{name} {word}".strip())


def _parameters(param: Any) -> Iterator[tuple[str, list[str]]]:
    if param.param_type_name == "argument":
        yield f"[{param.name}]", ["again"] if param.nargs != 1 else []
        return
    does = [] if param.is_flag else ["value"]
    does += ["again"] if param.multiple else []
    does += [f"env {param.envvar}"] if param.envvar else []
    for word in (*param.opts, *param.secondary_opts):
        yield word, does


def _asked(*words: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(said(words, Path(folder), Path(folder)).text())


def _choices(*words: str) -> list[str]:
    """What an option takes, by what the command says to a word that it does not."""
    with tempfile.TemporaryDirectory() as folder:
        refused = said(words, Path(folder), Path(folder))
    assert refused.status == 2, refused
    return refused.err.strip().partition("one of ")[2].split(", ")
