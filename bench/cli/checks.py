"""``bench checks``: what cannot be measured, declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Typer

from bench.cli.output import emit
from bench.errors import UserError

checks = Typer(no_args_is_help=True, help="What cannot be measured, declared: a template.", rich_markup_mode=None)


@checks.callback()
def _group() -> None:
    """What cannot be measured, declared: a template."""


@checks.command("init")
def init(file: Annotated[Path, Argument(metavar="[FILE]", help="Where to write it.")] = Path("checks.toml")) -> None:
    """Write a template of declared checks: who owns it, where the data may lie, whom to call, each with its question.

    An existing file stays as it is. Fill it in, then: bench run --checks FILE.

    Example:  bench checks init acceptance/checks.toml
    """
    import probes.checks

    text = Path(probes.checks.__file__).with_name("template.toml").read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    emit(f"{file}: {text.count('[[check]]')} checks, all open; fill it in, then: bench run --checks {file}")
