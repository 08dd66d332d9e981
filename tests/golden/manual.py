"""The man page and the completion files, from the commands as click knows them and typer's own scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
from typer._completion_shared import get_completion_script

from bench import __version__
from bench.cli.app import command_line
from bench.workflows.site import CONFIG, OURS

NAMES = ("bench", OURS)
#: Where each lies in the repository; pyproject.toml says where the wheel puts it.
MAN, COMPLETION = "docs/man", "docs/completion"
_SUMMARY = "tell whether a GPU node is ready for AI work"
_FILES = {
    f"{CONFIG}": "Options of bench run by name: of the working directory, else the next.",
    f"~/.config/{OURS}/{CONFIG}": "Of the user.",
    f"/etc/{OURS}/{CONFIG}": "Of the site.",
    f"~/.local/state/{OURS}, /var/lib/{OURS}": "Stored runs, of a user and of root.",
}
_ENVIRONMENT = {
    "NO_COLOR": "No colours, if it is set to anything.",
    "CLICOLOR_FORCE": "Colours where standard output is no terminal too, if it is set to anything but 0.",
    "BENCH_DEBUG": "A fault of the program itself ends in a traceback.",
}


def man_page() -> str:
    """bench(1), in the man macros."""
    root = typer.main.get_command(command_line())
    lines = [
        f'.TH BENCH 1 "" "aiready-bench {__version__}" "User Commands"',
        ".SH NAME", f"{', '.join(map(_text, NAMES))} \\- {_SUMMARY}",
        ".SH SYNOPSIS", ".B bench", r"\fICOMMAND\fR [\fIOPTION\fR]...",
        ".SH DESCRIPTION", _text(str(root.help)),
        f".B {_text(NAMES[1])}", "is the same command, for where another bench stands on the path.",
        ".SH OPTIONS", *_options(root),
        ".SH COMMANDS", *_commands(root, "bench"),
        ".SH EXIT STATUS", *_defined(_statuses(str(root.epilog))),
        ".SH ENVIRONMENT", *_defined({**_variables(root), **_ENVIRONMENT}),
        ".SH FILES", *_defined(_FILES),
        ".SH SEE ALSO", r"fio(1), iperf3(1), nvidia\-smi(1)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _commands(group: Any, words: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{words} {name}")
            continue
        arguments = " ".join(str(p.metavar) for p in command.params if p.param_type_name == "argument" and p.metavar)
        yield f'.SS "{_text(f"{words} {name} {arguments}".strip())}"'
        told, _, examples = str(command.help).partition("\b\n")
        yield from (_text(" ".join(part.split())) + "\n.PP" for part in told.strip().split("\n\n"))
        if examples:
            yield from (".nf", *(_text(line) for line in examples.splitlines()), ".fi")
        yield from _options(command)


def _options(command: Any) -> Iterator[str]:
    for option in command.params:
        if option.param_type_name == "argument" or option.hidden:
            continue
        names = ", ".join(rf"\fB{_text(name)}\fR" for name in (*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else rf" \fI{_text(str(option.metavar or option.name).upper())}\fR"
        yield from (".TP", names + value, _text(str(option.help or "").strip()))


def _variables(command: Any) -> dict[str, str]:
    """Every environment variable that stands for an option, with the first option that it stands for."""
    found: dict[str, str] = {}
    for inner in getattr(command, "commands", {}).values():
        found = {**_variables(inner), **found}
    for option in command.params:
        for variable in [option.envvar] if isinstance(option.envvar, str) else option.envvar or []:
            found.setdefault(variable, f"The same as {option.opts[0]}.")
    return dict(sorted(found.items()))


def _statuses(epilog: str) -> dict[str, str]:
    """``Exit status: 0 GO, 130 and 143 interrupted.`` by the number."""
    return {
        number: what.strip(" ,.") + "."
        for numbers, what in re.findall(r"(\d+(?: and \d+)?) (\D+)", epilog)
        for number in numbers.split(" and ")
    }


def _defined(pairs: dict[str, str]) -> Iterator[str]:
    for name, what in pairs.items():
        yield from (".TP", rf"\fB{_text(name)}\fR", _text(what))


def _text(text: str) -> str:
    """Escaped for roff: backslashes, hyphens that may be copied, and what would begin a request."""
    plain = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^(?=[.'])", r"\\&", plain, flags=re.M)


def completion(shell: str) -> str:
    """For both names of the command, in bash, zsh or fish."""
    scripts = [get_completion_script(prog_name=name, complete_var="_BENCH_COMPLETE", shell=shell) for name in NAMES]
    if shell == "zsh":  # one file of site-functions may serve several commands
        return (
            scripts[0]
            .replace("#compdef bench", f"#compdef {' '.join(NAMES)}")
            .replace("_BENCH_COMPLETE=complete_zsh bench", "_BENCH_COMPLETE=complete_zsh ${words[1]}")
            .replace("compdef _bench_completion bench", f"compdef _bench_completion {' '.join(NAMES)}")
            # the first TAB loads the file and is to be answered as well
            + '\n[[ $zsh_eval_context[-1] != loadautofunc ]] || _bench_completion "$@"\n'
        )
    return "\n".join(scripts) + "\n"


FILES = {
    f"{MAN}/bench.1": man_page,
    f"{MAN}/{OURS}.1": lambda: ".so man1/bench.1\n",
    f"{COMPLETION}/bench": lambda: completion("bash"),
    f"{COMPLETION}/{OURS}": lambda: completion("bash"),
    f"{COMPLETION}/_bench": lambda: completion("zsh"),
    f"{COMPLETION}/bench.fish": lambda: completion("fish"),
    f"{COMPLETION}/{OURS}.fish": lambda: completion("fish"),
}
