"""The raw output of tools beside a stored run, read with care: paths in a run document are not trusted.

Only regular files below the run's own folder are read, and links are not followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from bench.measure.jsonl import decoded
from bench.measure.regular_files import NotReadable, read_below
from bench.model import Evidence, ProbeResult

_INDEX = "tools.jsonl"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Lines:
    """One line of a file of raw output, or several that tell something together; ``text`` is that of the first.

    ``file`` is its path below the run's folder; lines are counted from 1, and ``last`` is one of them.
    """

    file: str
    first: int
    last: int
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call of a tool, as ``tools.jsonl`` has it; ``file`` holds its output. No argv: recorded text."""

    name: str
    file: str
    argv: tuple[str, ...]
    returncode: int | None
    seconds: float
    stderr: str
    error: str | None


class RawOutput:
    """The raw output below ``folder``, which holds the run's document; None: there is none to look at."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @cache  # noqa: B019 - lives as long as one command
    def read(self, relative: str) -> bytes | None:
        """The content of a regular file below the folder; None for anything else, whatever the path says."""
        if self.folder is not None:
            with suppress(NotReadable):
                return read_below(self.folder, relative, _MAX_BYTES)
        return None

    def text(self, relative: str) -> str:
        """The same as text; empty where it cannot be read."""
        return (self.read(relative) or b"").decode("utf-8", "replace")

    def state(self, item: Evidence) -> str:
        """Whether the file is still the one that was measured."""
        if self.folder is None:
            return "not looked at"
        data = self.read(item.path)
        if data is None:
            return "NOT THERE, or not a file of this run"
        return "unchanged" if hashlib.sha256(data).hexdigest() == item.sha256 else "CHANGED since it was measured"

    def calls(self, result: ProbeResult) -> list[Call]:
        """The probe's recorded calls in the folders of its evidence; what is no call is left out.

        Of figures that were put together from several probes', the calls that are its evidence.
        """
        folders = dict.fromkeys(PurePosixPath(item.path).parent for item in result.evidence)
        lines = [(place, line) for place in folders for line in (self.read(str(place / _INDEX)) or b"").splitlines()]
        found = [(place, decoded(line) or {}) for place, line in lines]
        calls = [(one, _call(place, one)) for place, one in found if isinstance(one.get("argv"), list)]
        files = {item.path for item in result.evidence}
        own = [call for one, call in calls if one.get("probe") == result.probe]
        return own or [call for _, call in calls if call.file in files]


def _call(place: PurePosixPath, entry: Mapping[str, Any]) -> Call:
    code, seconds, error = entry.get("returncode"), entry.get("seconds"), entry.get("error")
    return Call(
        name=str(entry.get("name", "")),
        file=str(place / PurePosixPath(str(entry.get("stdout", ""))).name),
        argv=tuple(map(str, entry["argv"])),
        returncode=code if isinstance(code, int) else None,
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        stderr=str(entry.get("stderr") or ""),
        error=str(error) if error else None,
    )
