"""What can go wrong with a stored run. Each message is one printable line: the file, the place, what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

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


def cannot_store(path: Path, error: OSError) -> StoreError:
    """The one line for a file system that refused: where, why, and the way round it."""
    return StoreError(one_line(f"{path}: cannot store the run: {why(error)}; {_fix(error)}"))


def _fix(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there, or choose another folder with --results DIR"
    if error.errno == errno.ELOOP:
        return "it is a link, which is not followed; choose a real folder with --results DIR"
    return "choose a folder you may write to with --results DIR"
