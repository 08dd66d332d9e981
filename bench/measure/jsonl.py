"""JSON lines: how the programs that we start answer. One object a line; whatever is not one is said by its line.

Stricter than ``json.loads``: a number that no double holds (NaN, Infinity, 1e999, an integer of 400 digits) and a
nesting deeper than Python reads are no JSON here, so that nothing behind this door meets one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bench.measure.probe import Failed, ProbeError
from bench.model import Code

#: Every integer of so many digits is below the largest double, 1.8e308 (IEEE 754).
_MOST_DIGITS = 300
_MOST_REASON = 4000


def decoded(line: str | bytes, key: str | None = None) -> dict[str, Any] | None:
    """The object in ``line``, or None when it holds none, or none with a text at ``key``."""
    try:
        value = json.loads(line, parse_int=_whole, parse_float=_finite, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and (key is None or isinstance(value.get(key), str)) else None


def objects(text: str, who: str, key: str | None = None) -> list[dict[str, Any]]:
    """The object of every line that is not blank; ``who`` printed them, each with a text at ``key``.

    Raises Failed, naming the line, where one is something else or was cut off.
    """
    return [_object(number, line, who, key) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def readable(text: str, key: str | None = None) -> list[dict[str, Any]]:
    """What can be read of an output that was cut off: the lines that are objects."""
    return [value for line in text.splitlines() if (value := decoded(line, key)) is not None]


@contextmanager
def understood(who: str) -> Iterator[None]:
    """Around the reading of objects: what is missing in them or of another type is Failed, in one line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Failed(Code.TOOL_OUTPUT, f"{who} left something out: {error!r}"[:_MOST_REASON]) from error


def refusal(
    word: str, text: str, kinds: Mapping[str, type[ProbeError]], remedies: Mapping[str, str | None]
) -> ProbeError:
    """The error for what a program said of itself: a machine word, and a sentence for people, put on one line."""
    sentence = " ".join(text.split())
    return kinds.get(word, Failed).told(f"{word}: {sentence}"[:_MOST_REASON], remedies.get(word))


def _object(number: int, line: str, who: str, key: str | None) -> dict[str, Any]:
    value = decoded(line, key)
    if value is None:
        wanted = f"a JSON object with {key!r}" if key else "a JSON object"
        raise Failed(Code.TOOL_OUTPUT, f"line {number} of {who} is not {wanted}: {line[:80]!r}")
    return value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError("more digits than a double holds")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("larger than a double holds")
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number")
