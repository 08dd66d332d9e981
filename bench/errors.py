"""What a person is told in one line: an error that ends the command before there is a verdict, or a note beside it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def printable(text: str) -> str:
    """On one line, without what a terminal would obey: a path or a key of a foreign file may hold anything."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class UserError(Exception):
    """The message is the whole of what the user sees; ``status`` is the contract's exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(printable(message))
        self.status = status


def note(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(printable(text) + "\n")


def why(error: Exception) -> str:
    """What went wrong, in the system's own words for an OSError: without the path and the number."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def first_mistake(error: ValidationError) -> tuple[str, str]:
    """The place of the first (``results.0.value``; empty for the whole) and what is wrong there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
