"""The command line: parses, calls, exits. Each command is one file, and imports what it needs when it is called."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise

import typer

from bench import __version__
from bench.errors import UserError

#: typer carries click inside of itself or beside itself, by version; the base class is found either way.
_ClickError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_EXAMPLES = re.compile(r"\s*\bExamples?:\s+(.*)\Z", re.S)
_NEXT = re.compile(r"\s{2,}(?=(?:[A-Z_]+=\S+ )*bench\b)")
#: ``--storage=``: an option with nothing after it.
_UNSAID = re.compile(r"--[a-z-]+=")
#: click leaves a paragraph as it is when its first line is this character alone.
_AS_IT_IS = "\b"

#: Each command, in the order of the help, with the module of `bench.cli` that has the function of its name.
_COMMANDS = {
    "run": "run", "gate": "gate", "explain": "report", "report": "report", "compare": "report", "history": "history",
    "export": "export", "sign": "evidence", "verify": "evidence", "doctor": "doctor", "peer": "peer",
    "probes": "doctor", "profiles": "doctor",
}  # fmt: skip
_GROUPS = ("baseline", "checks", "schedule", "fleet")


def _version(wanted: bool) -> None:
    if wanted:
        from bench.measure.node import TOOLS, nvidia_driver, versions

        absent = dict.fromkeys((*TOOLS, "torch"), "not installed, or it does not answer")
        found = {"NVIDIA driver": nvidia_driver() or "not loaded", **absent, **versions(timeout=2)}
        del found["bench"]
        typer.echo("\n".join([f"aiready-bench {__version__}", *(f"  {what}: {one}" for what, one in found.items())]))
        raise typer.Exit


def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="The version, and those of the tools that measure."
    ),
) -> None:
    """Is this GPU node ready for AI work? Measures storage, network and accelerator, and judges each workload."""


def help_text(docstring: str | None) -> str:
    """The docstring with the usual exit status, unless it states its own, and one example a line, as it is typed."""
    text = inspect.cleandoc(docstring or "")
    explained, *examples = _EXAMPLES.split(text, maxsplit=1)
    if "Exit status" not in text:
        explained += "\n\nExit status: 0, or 2 and one line that says why it could not be done."
    if examples:
        lines = [f"  {' '.join(example.split())}" for example in _NEXT.split(examples[0])]
        explained += "\n".join([f"\n\n{_AS_IT_IS}", "Examples:", *lines])
    return explained


def command_line(name: str = "") -> typer.Typer:
    """The whole, or with the one command or group of that name: then nothing of the others is loaded."""
    known = name in _COMMANDS or name in _GROUPS
    app = typer.Typer(
        name="bench",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(epilog="Exit status: 0 GO, 1 NO-GO, 2 no verdict, 3 INCONCLUSIVE, 130 and 143 interrupted.")(_main)
    infos = app.registered_commands
    for command in [one for one in _COMMANDS if one == name or not known]:
        module = import_module(f"bench.cli.{_COMMANDS[command]}")
        app.command(cls=module.RunCommand if command == "run" else None)(getattr(module, command))
    for group in [one for one in _GROUPS if one == name or not known]:
        part = getattr(import_module(f"bench.cli.{group}"), group)
        app.add_typer(part, name=group)
        infos = [*infos, *part.registered_commands]
    for info in infos:
        info.help = help_text(info.callback and info.callback.__doc__)
    return app


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise UserError for an empty word: ``--storage "$DATA"`` without DATA must not mean the working directory, nor
    ``gate "$RUN"`` without RUN the newest run.
    """
    for before, word in pairwise(("", *arguments)):
        if not word or _UNSAID.fullmatch(word):
            where = word.rstrip("=") or (before if before.startswith("-") else "an argument")
            raise UserError(f"{where} is empty: is the variable that it comes from set?")


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status. Usage errors and unusable input are one line and status 2."""
    try:
        _refuse_empty(arguments)
        command = command_line(arguments[0] if arguments else "")
        status = command(list(arguments), prog_name="bench", standalone_mode=False)
    except _ClickError as error:
        error.show()  # type: ignore[attr-defined]
        return 2
    except typer.Abort:
        return 130
    except UserError as error:
        from bench.store.errors import one_line

        mistakes = getattr(error, "mistakes", (str(error),))
        sys.stderr.write("bench: " + "\n".join(one_line(mistake, 1000) for mistake in mistakes) + "\n")
        return error.status
    except SystemExit as error:  # typer's own answer to a reader that went away is 1, which would read as NO-GO
        return error.code if isinstance(error.code, int) and error.code != 1 else 2
    return status if isinstance(status, int) else 0
