"""The user's own folders, by the XDG Base Directory Specification. An account in a container may have no home."""

from __future__ import annotations

import os
from pathlib import Path


def own_folder(variable: str, below: str) -> Path | None:
    """The folder that the variable names (``XDG_CACHE_HOME``), else that one in the home; None without a home."""
    if given := os.environ.get(variable):
        return Path(given)
    home = os.path.expanduser("~")
    return Path(home, below) if home != "~" else None
