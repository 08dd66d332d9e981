"""What a person is told in one line: an error that ends the command before there is a verdict, or a note beside it."""

from __future__ import annotations

import sys


class UserError(Exception):
    """The message is the whole of what the user sees; ``status`` is the contract's exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def note(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(text + "\n")
