"""Whether a stream is shown in colour, and rich's console for it: both decided here alone.

``NO_COLOR`` (no-color.org) goes before ``CLICOLOR_FORCE`` (bixense.com/clicolors), and that before what the stream is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def is_colourful(stream: TextIO) -> bool:
    """A terminal that can, or wherever CLICOLOR_FORCE is set to anything but 0; nowhere with NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and os.environ.get("CLICOLOR") != "0"


def console(file: TextIO, width: int | None = None, *, colours: bool | None = None) -> Console:
    """A console that writes to ``file``, in ``colours`` as the stream can by default."""
    from rich.console import Console

    wanted = is_colourful(file) if colours is None else colours
    return Console(
        file=file, width=width, force_terminal=True if wanted else None, color_system="standard" if wanted else None,
        legacy_windows=False, emoji=False, markup=False, highlight=False, _environ=None if width is None else {},
    )  # fmt: skip
