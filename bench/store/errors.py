"""What can go wrong with a stored run. Each message is one printable line: the file, the place, what to do."""

from __future__ import annotations

import os

from bench.errors import UserError


class StoreError(UserError):
    """The run could not be stored (full, read-only, no permission, already there)."""


class UnusableRun(UserError):
    """The run could not be read, or the reference names none, or more than one."""


def one_line(text: str, longest: int = 400) -> str:
    """Printable and on one line, because a path or a key of a foreign file may hold terminal escapes.

    A long one loses its middle: the file stands at its beginning, the reason and the fix at its end.
    """
    line = "".join(c if c.isprintable() else "?" for c in text)
    head = longest // 3
    return line if len(line) <= longest else line[:head] + "..." + line[head + 3 - longest :]


def why(error: OSError) -> str:
    """The system's own words for an OSError, without the path and the number."""
    return os.strerror(error.errno) if error.errno else str(error)
