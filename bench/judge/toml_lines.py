"""TOML read strictly: what it says, and the line of each mistake in it. Pure.

Profiles and declared checks are such files: a list of tables, ``[[gate]]`` or ``[[check]]``, held against a strict
pydantic model.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import count
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import UserError, printable

_WANTED = {
    "string_type": "a string in quotes",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "date_type": "a date without quotes, 2027-06-30 say",
    "dict_type": 'a table, { key = "value" } say',
    "model_type": "a table under [[]]",
    "tuple_type": "written as [[]] tables",
}


class TomlError(UserError):
    """A file that cannot be used. ``mistakes`` has one line for each, ``FILE:LINE: what is wrong``."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        self.mistakes = tuple(map(printable, mistakes))
        super().__init__("")
        self.args = ("\n".join(self.mistakes),)  # each on its line


class StrictTable(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


#: A key of a hundred parts: tomllib takes time by the square of their number, minutes for a file of 40 kB.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){100}""")


def parse(text: str, name: str) -> dict[str, Any]:
    """What the file says. Raises TomlError."""
    if text.startswith("\ufeff"):
        raise TomlError((f"{name}:1: begins with a byte order mark: save it as UTF-8 without one",))
    if endless := _DEEP_KEY.search(text):
        raise TomlError((f"{name}:{text.count(chr(10), 0, endless.start()) + 1}: nested too deeply",))
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise TomlError((f"{name}:1: nested too deeply",)) from None
    except tomllib.TOMLDecodeError as error:
        raise TomlError((_syntax(str(error), text, name),)) from None
    except ValueError:  # what int() says to thousands of digits; it names no line
        raise TomlError((f"{name}:1: not TOML: a number has too many digits",)) from None


def refuse(mistakes: Mapping[Path, str], text: str, name: str) -> None:
    """Raise TomlError with these mistakes in the order of the file, if there are any."""
    if mistakes:
        lines = lines_of(text)
        ordered = sorted((line_of(lines, path), message) for path, message in mistakes.items())
        raise TomlError(tuple(f"{name}:{line}: {message}" for line, message in dict.fromkeys(ordered)))


def form(raw: dict[str, Any], whole: type[BaseModel], table: type[BaseModel], word: str) -> Iterator[tuple[Path, str]]:
    """Unknown keys, missing keys and wrong types: of the file, and of its tables ``[[word]]``."""
    try:
        whole.model_validate(raw)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            path = mistake["loc"]
            fields = (table if len(path) > 1 else whole).model_fields.items()
            known = [field.alias or name for name, field in fields]
            yield path, _sentence(mistake["type"], path, mistake["msg"], known, word)


def _sentence(kind: str, path: Path, message: str, known: list[str], word: str) -> str:
    key = shown(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return f"unknown key {key}{nearest(str(path[-1]), known)}"
    if kind == "missing":
        return f"there is no [[{word}]]" if path == (word,) else f"{key} is missing"
    if kind == "value_error":
        return (f"the {word} " if path else "") + message.removeprefix("Value error, ")
    if kind == "literal_error":
        return f"{key} must be {message.removeprefix('Input should be ')}"
    if kind == "string_too_short":
        return f"{key} must not be empty"
    if path[-1] == "[key]":  # pydantic's way to say that the key itself is wrong
        return f"label {shown(path[-2])} is not a label's name: use lower case, digits and _"
    if kind == "string_pattern_mismatch":
        return f"{key} must be lower case with digits and {'_' if path[-1] == 'metric' else '-'}"
    if isinstance(path[-1], int):
        key = f"a {word}"
    return f"{key} must be {_WANTED[kind].replace('[[]]', f'[[{word}]]')}" if kind in _WANTED else f"{key}: {message}"


def _syntax(message: str, text: str, name: str) -> str:
    """``FILE:LINE: ...`` from tomllib's ``... (at line 3, column 5)`` or ``... (at end of document)``."""
    place = re.search(r"\s*\(at line (\d+), column (\d+)\)$", message)
    if place is not None:
        return f"{name}:{place[1]}: not TOML: {message[: place.start()]} at column {place[2]}"
    line = text.rstrip().count("\n") + 1 if message.endswith("(at end of document)") else 1
    return f"{name}:{line}: not TOML: {message.removesuffix(' (at end of document)')}"


def nearest(name: str, known: list[str]) -> str:
    """``; did you mean ...?``, or nothing."""
    close = get_close_matches(name[:200], known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def shown(name: object) -> str:
    """A name from a file as one short line without control characters, between backquotes."""
    return f"`{ascii(str(name)[:80])[1:-1]}`"


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
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        keys = self._key()
        self.at += brackets
        path: Path = ()
        for parents_left, key in zip(reversed(range(len(keys))), keys, strict=True):
            path = (*path, key)
            self._mark(path, start)
            if brackets == 2 and not parents_left:
                self._latest[path] = self._latest.get(path, -1) + 1
            if path in self._latest:
                path = (*path, self._latest[path])
                self._mark(path, start)
        return path

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
        match self.text[self.at]:
            case '"' | "'":
                self._skip(_STRING)
            case "[":
                for index in self._elements("]"):
                    self._mark((*path, index), self.at)
                    self._value((*path, index))
            case "{":
                for _ in self._elements("}"):
                    self._pair(path)
            case _:
                self._skip(_SCALAR)

    def _elements(self, end: str) -> Iterator[int]:
        """The number of each element of an array or inline table, standing before it; afterwards stands behind all."""
        self.at += 1
        for index in count():
            self._skip(_GAP)
            if self.text[self.at] == end:
                break
            yield index
        self.at += 1
