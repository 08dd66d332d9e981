"""What ends a command before there is a verdict: one line for a person, one status for a script."""

from __future__ import annotations


class CliError(Exception):
    """The message is the whole of what the user sees; ``status`` is the contract's exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status
