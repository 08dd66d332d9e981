"""What can go wrong with a stored run. Each message is one printable line: the file, the place, what to do."""

from __future__ import annotations

from bench.errors import UserError, printable


class StoreError(UserError):
    """The run could not be stored (full, read-only, no permission, already there)."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UnusableRun(UserError):
    """The run could not be read, or the reference names none, or more than one."""


def one_line(text: str, longest: int = 400) -> str:
    """Printable, on one line; a long one loses its middle: the file stands first, what mends it last."""
    line = printable(text)
    head = longest // 3
    return line if len(line) <= longest else line[:head] + "..." + line[head + 3 - longest :]
