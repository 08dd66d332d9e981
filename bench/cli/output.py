"""Standard output, for people and for programs. A reader that goes away does not change the verdict's status."""

from __future__ import annotations

import os
import sys


def emit(text: str) -> None:
    """Write ``text`` and a newline to standard output."""
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(text + "\n")
