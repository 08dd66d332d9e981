"""Which line a key of a TOML text stands on. ``tomllib`` reads the values but forgets the lines.

Made for text that ``tomllib`` has accepted: it finds keys, and does not check anything again.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n,]|#[^\n]*)*")  # between the elements of an array or table, and between statements
_SCALAR = re.compile(r"[^,\]}\n#]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")' + r"|'''.*?'{3,5}(?!')" + r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'", re.DOTALL
)


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of every key: ``{("gate", 0, "max"): 7, ...}``; ``()`` is line 1.

    Array elements are counted from 0, those of ``[[gate]]`` too. Dotted and quoted keys, inline tables, arrays over
    several lines, multi-line strings and CRLF are understood.
    """
    return _Scanner(text.replace("\r\n", "\n")).document()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of ``path``, or of the nearest thing around it that has one."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


class _Scanner:
    """One pass over the text; ``at`` is where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {(): 1}
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._latest: dict[Path, int] = {}  # array of tables -> index of its newest table

    def document(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_GAP)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_GAP)
        return self.lines

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"not TOML at character {self.at}")
        self.at = match.end()
        return match.group()

    def _mark(self, path: Path, start: int) -> None:
        self.lines.setdefault(path, bisect_right(self._newlines, start - 1) + 1)

    def _header(self) -> Path:
        """``[a.b]`` or ``[[a.b]]``; returns the path of the table that it opens."""
        start = self.at
        double = self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        *parents, last = self._key()
        self.at += 2 if double else 1
        path: Path = ()
        for parent in parents:
            path = self._newest((*path, parent))
            self._mark(path, start)
        path = (*path, last)
        self._mark(path, start)
        if double:
            self._latest[path] = self._latest.get(path, -1) + 1
        path = self._newest(path)
        self._mark(path, start)
        return path

    def _newest(self, path: Path) -> Path:
        return (*path, self._latest[path]) if path in self._latest else path

    def _key(self) -> list[str]:
        """A dotted key; stands behind it afterwards."""
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            if self.text[self.at] in "\"'":
                parts.append(tomllib.loads(f"key = {self._skip(_STRING)}")["key"])
            else:
                parts.append(self._skip(_BARE_KEY))
            self._skip(_BLANK)
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def _pair(self, table: Path) -> None:
        start = self.at
        path = table
        for part in self._key():
            path = (*path, part)
            self._mark(path, start)
        self.at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._skip(_STRING)
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        self._skip(_GAP)
        while self.text[self.at] != "]":
            self._mark((*path, index), self.at)
            self._value((*path, index))
            index += 1
            self._skip(_GAP)
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        self._skip(_GAP)
        while self.text[self.at] != "}":
            self._pair(path)
            self._skip(_GAP)
        self.at += 1
