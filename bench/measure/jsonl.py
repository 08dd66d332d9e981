"""JSON lines: how the programs that we start answer. One object a line; whatever is not one is said by its line.

Stricter than ``json.loads``: a number that no double holds (NaN, Infinity, 1e999, an integer of 400 digits) and a
nesting deeper than Python reads are no JSON here, so that no reader meets one.

`records` and `record` make typed values of the lines at once: a kind of line is a frozen dataclass of numbers, texts,
lists, tuples, dicts and further dataclasses. Types are taken strictly (a bool is no number, "1" is none, an int will do
for a float, a list for a tuple, a digit string for an int as a key), fields that the class lacks are ignored, and a
field with a default may be missing. The types in it must be importable where it is defined, not for type checkers only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from bench.errors import first_mistake
from bench.measure.probe import Failed, ProbeError
from bench.model import Code

#: Every integer of so many digits is below the largest double, 1.8e308 (IEEE 754).
_MOST_DIGITS = 300
_MOST_REASON = 4000

T = TypeVar("T")


def records(
    text: str, who: str, kinds: Mapping[str, type[T] | None], key: str = "kind", *, cut: bool = False
) -> list[T]:
    """The lines that ``who`` printed, each as the dataclass that ``kinds`` has for the text at ``key``.

    A kind with None is known and left out, as blank lines are. Raises Failed, naming the line and the field, for what
    is no object, of no known kind, or not of its type; where the output was ``cut`` off, such lines are left out too.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        with suppress(Failed) if cut else nullcontext():
            if line.strip() and (value := _record(line, f"line {number} of {who}", kinds, key)) is not None:
                found.append(value)
    return found


def record(line: str, kind: type[T]) -> T | None:
    """The ``kind`` in one live line, or None when it holds none; a ``Literal`` field tells it from another kind."""
    with suppress(Failed):
        return _typed(line, kind, "the line") if decoded(line) is not None else None
    return None


def _record(line: str, where: str, kinds: Mapping[str, type[T] | None], key: str) -> T | None:
    word = _object(line, where, key)[key]
    if word not in kinds:
        raise Failed(Code.TOOL_OUTPUT, f"{where} is of no known {key}: {word[:80]!r}")
    kind = kinds[word]
    return None if kind is None else _typed(line, kind, f"{where} ({word})")


def _typed(line: str, kind: type[T], where: str) -> T:
    try:
        return cast(T, _adapter(kind).validate_json(line, strict=True))
    except ValidationError as error:
        field, wrong = first_mistake(error)
        problem = f"{where} has no sound {field[:200]!r}: {wrong}" if field else f"{where}: {wrong}"
        raise Failed(Code.TOOL_OUTPUT, problem[:_MOST_REASON]) from error
    except UnicodeError as error:
        raise Failed(Code.TOOL_OUTPUT, f"{where} is no UTF-8") from error


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def decoded(line: str | bytes, key: str | None = None) -> dict[str, Any] | None:
    """The object in ``line``, or None when it holds none, or none with a text at ``key``."""
    try:
        value = json.loads(line, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and (key is None or isinstance(value.get(key), str)) else None


def objects(text: str, who: str, key: str | None = None) -> list[dict[str, Any]]:
    """The object of every line that is not blank; ``who`` printed them, each with a text at ``key``.

    Raises Failed, naming the line, where one is something else or was cut off.
    """
    lines = enumerate(text.splitlines(), 1)
    return [_object(line, f"line {number} of {who}", key) for number, line in lines if line.strip()]


@contextmanager
def understood(who: str) -> Iterator[None]:
    """Around the reading of objects: what is missing in them or of another type is Failed, in one line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise Failed(Code.TOOL_OUTPUT, f"{who} left something out: {error!r}"[:_MOST_REASON]) from error


def refusal(
    word: str, text: str, kinds: Mapping[str, type[ProbeError]], remedies: Mapping[str, str | None]
) -> ProbeError:
    """The error for what a program said of itself: a machine word, and a sentence for people, put on one line."""
    sentence = " ".join(text.split())
    return kinds.get(word, Failed).told(f"{word}: {sentence}"[:_MOST_REASON], remedies.get(word))


def _object(line: str, where: str, key: str | None) -> dict[str, Any]:
    value = decoded(line, key)
    if value is None:
        wanted = f"a JSON object with {key!r}" if key else "a JSON object"
        raise Failed(Code.TOOL_OUTPUT, f"{where} is not {wanted}: {line[:80]!r}")
    return value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError("more digits than a double holds")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("no number that a double holds")
    return value
