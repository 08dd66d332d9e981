"""``--help`` texts: the examples of a docstring one a line, as they are typed, below the text that explains."""

from __future__ import annotations

import inspect
import re

import typer

_EXAMPLES = re.compile(r"\s*\bExamples?:\s+(?P<examples>.*)\Z", re.S)
_NEXT = re.compile(r"\s{2,}(?=(?:[A-Z_]+=\S+ )*bench\b)")
#: click leaves a paragraph as it is when its first line is this character alone.
_AS_IT_IS = "\b"


def with_examples(text: str | None) -> str:
    """The help text with each example on a line of its own."""
    whole = inspect.cleandoc(text or "")
    found = _EXAMPLES.search(whole)
    if found is None:
        return whole
    examples = [" ".join(one.split()) for one in _NEXT.split(found["examples"])]
    lines = "\n".join(f"  {example}" for example in examples)
    return f"{whole[: found.start()]}\n\n{_AS_IT_IS}\nExamples:\n{lines}"


def show_examples(app: typer.Typer) -> None:
    """Do it for every command of the application, and of its groups."""
    for command in app.registered_commands:
        command.help = with_examples(command.help or getattr(command.callback, "__doc__", None))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            show_examples(group.typer_instance)
