"""Profile and Gate, read from TOML: strict, with file, line and the nearest name for each mistake.

A profile is data: a metric, a limit, where the limit comes from. There is no expression language, and nothing of a
profile is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from itertools import count
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench.errors import UserError
from bench.model import Label, Limit, Metric, Name

#: Every measurement may carry it, whatever its metric declares.
STAND_IN = "stand_in"
_WANTED = {
    "string_type": "a string in quotes",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": 'a table, { key = "value" } say',
    "model_type": "a table under [[gate]]",
    "tuple_type": "written as [[gate]] tables",
}

Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class ProfileError(UserError):
    """A profile that cannot be used. ``mistakes`` has one line for each, ``FILE:LINE: what is wrong``."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class _StrictTable(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Gate(_StrictTable):
    """One metric and one limit. ``min`` and ``max`` are in the metric's base unit, and exactly one is given.

    ``per`` multiplies ``min`` by the accelerators of the node. ``when`` asks only nodes that have RDMA (InfiniBand or
    RoCE), or only those that have none.
    """

    metric: Name
    labels: dict[Name, Label] = {}
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None
    required: bool = True
    accept_stand_in: bool = False
    per: Literal["accelerator"] | None = None
    when: Literal["rdma", "no_rdma"] | None = None
    source: Sentence
    remedy: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""

    @field_validator("per")
    @classmethod
    def _multiplies_a_minimum(cls, per: str | None, info: ValidationInfo) -> str | None:
        if per and not (info.data.get("min") or 0.0) > 0.0:
            raise ValueError("asks more of a node with more accelerators, so `per` needs a `min` above 0")
        return per

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.min is None) == (self.max is None):
            raise ValueError("needs one limit, `min` or `max`" + ("" if self.min is None else ", not both"))
        return self

    @property
    def limit(self) -> Limit:
        return Limit(min=self.min, max=self.max)


class Profile(_StrictTable):
    """What one workload needs. At least one gate is required, else there is nothing that a GO could stand on."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    description: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""
    gates: tuple[Gate, ...] = Field(alias="gate", strict=False)

    @model_validator(mode="after")
    def _can_decide(self) -> Self:
        if not any(gate.required for gate in self.gates):
            raise ValueError("no gate is required, so the profile can never decide anything" if self.gates else _EMPTY)
        return self

    @cached_property
    def digest(self) -> str:
        """sha256 of what the profile says, in hexadecimal; not of comments, layout or spelled-out defaults."""
        said = self.model_dump(mode="json", exclude_none=True)
        content = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


_EMPTY = "there is no [[gate]]"


def load(text: str, name: str, metrics: Mapping[str, Metric]) -> Profile:
    """The profile in ``text``; ``name`` is the file's, for messages; ``metrics`` are those the probes declare.

    Raises ProfileError with one line for each mistake, in the order of the file.
    """
    raw, lines = _parse(text, name)
    meaning = dict(_meaning(raw, metrics))
    found = {path: message for path, message in _form(raw) if path[:-1] not in meaning} | meaning
    if found:
        ordered = sorted((line_of(lines, path), message) for path, message in found.items())
        raise ProfileError(tuple(f"{name}:{line}: {message}" for line, message in dict.fromkeys(ordered)))
    return Profile.model_validate(raw)


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[Path, int]]:
    try:
        return tomllib.loads(text), lines_of(text)
    except RecursionError:
        raise ProfileError((f"{name}:1: nested too deeply",)) from None
    except tomllib.TOMLDecodeError as error:
        raise ProfileError((_syntax(str(error), text, name),)) from None
    except ValueError:  # what int() says to thousands of digits; it names no line
        raise ProfileError((f"{name}:1: not TOML: a number has too many digits",)) from None


def _syntax(message: str, text: str, name: str) -> str:
    """``FILE:LINE: ...`` from tomllib's ``... (at line 3, column 5)`` or ``... (at end of document)``."""
    place = re.search(r"\s*\(at line (\d+), column (\d+)\)$", message)
    if place is not None:
        return f"{name}:{place[1]}: not TOML: {message[: place.start()]} at column {place[2]}"
    line = text.rstrip().count("\n") + 1 if message.endswith("(at end of document)") else 1
    return f"{name}:{line}: not TOML: {message.removesuffix(' (at end of document)')}"


def _form(raw: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Unknown keys, missing keys and wrong types."""
    try:
        Profile.model_validate(raw)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            path = mistake["loc"]
            yield path, _sentence(mistake["type"], path, mistake["msg"])


def _sentence(kind: str, path: Path, message: str) -> str:
    key = _shown(path[-1]) if path else ""
    if kind == "extra_forbidden":
        fields = (Gate if len(path) > 1 else Profile).model_fields.items()
        return f"unknown key {key}{_nearest(str(path[-1]), [field.alias or name for name, field in fields])}"
    if kind == "missing":
        return _EMPTY if path == ("gate",) else f"{key} is missing"
    if kind == "value_error":
        return ("the gate " if path else "") + message.removeprefix("Value error, ")
    if kind == "literal_error":
        return f"{key} must be {message.removeprefix('Input should be ')}"
    if kind == "string_too_short":
        return f"{key} must not be empty"
    if path[-1] == "[key]":  # pydantic's way to say that the key itself is wrong
        return f"label {_shown(path[-2])} is not a label's name: use lower case, digits and _"
    if kind == "string_pattern_mismatch":
        return f"{key} must be lower case with digits and {'_' if path[-1] == 'metric' else '-'}"
    if isinstance(path[-1], int):
        key = "a gate"
    return f"{key} must be {_WANTED[kind]}" if kind in _WANTED else f"{key}: {message}"


def _meaning(raw: dict[str, Any], metrics: Mapping[str, Metric]) -> Iterator[tuple[Path, str]]:
    """Metrics and labels that nobody declares, limits that make no sense for theirs, and gates that are there twice."""
    gates = raw.get("gate")
    seen: set[str] = set()
    for index, gate in enumerate(gates if isinstance(gates, list) else ()):
        if not isinstance(gate, dict) or not isinstance(gate.get("metric"), str):
            continue
        yield from _undeclared(("gate", index), gate, metrics)
        if metric := metrics.get(gate["metric"]):
            yield from _senseless(("gate", index), gate, metric)
        same = _identity(gate)
        if same in seen:
            yield ("gate", index), f"the gate on {_shown(gate['metric'])} is there twice"
        seen.add(same)


def _undeclared(at: Path, gate: dict[str, Any], metrics: Mapping[str, Metric]) -> Iterator[tuple[Path, str]]:
    name, labels = gate["metric"], gate.get("labels")
    metric = metrics.get(name)
    if metric is None:
        hint = _nearest(name, list(metrics)) or "; `bench probes` lists those that are"
        yield (*at, "metric"), f"no probe declares the metric {_shown(name)}{hint}"
        return
    for label in labels if isinstance(labels, dict) else ():
        if label != STAND_IN and label not in metric.labels:
            hint = _nearest(label, list(metric.labels)) or f"; it has {', '.join(metric.labels) or 'none'}"
            yield (*at, "labels", label), f"{name} has no label {_shown(label)}{hint}"


def _senseless(at: Path, gate: dict[str, Any], metric: Metric) -> Iterator[tuple[Path, str]]:
    """A limit that a better figure breaks, or that no share can reach."""
    for word, other, sense in (("min", "max", "lower"), ("max", "min", "higher")):
        limit = gate.get(word)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or limit != limit or abs(limit) == math.inf:
            continue
        if metric.better == sense:
            yield (*at, word), f"{metric.name}: {sense} is better, so it needs a `{other}`, not a `{word}`"
        elif metric.is_share and not 0.0 <= limit <= 1.0:
            yield (*at, word), f"`{word}` must be between 0 and 1: {metric.name} is a share, and 10 % is 0.1"


def _identity(gate: dict[str, Any]) -> str:
    """What makes a second gate a repetition: a warning beside a required limit is not one."""
    labels, bounds = gate.get("labels"), [bound for bound in ("min", "max") if bound in gate]
    pairs = sorted((key, repr(value)) for key, value in labels.items()) if isinstance(labels, dict) else []
    return repr((gate["metric"], pairs, bounds, gate.get("required", True), gate.get("when")))


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name[:200], known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _shown(name: object) -> str:
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
