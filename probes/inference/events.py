"""What the load printed, checked: JSON lines to events, each named by its ``event``. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.measure import jsonl as lines
from bench.measure.probe import Failed, ProbeError, Unsupported

Event = Mapping[str, Any]
_KEY = "event"


def events(text: str) -> list[Event]:
    """The events of a whole output. Raises Failed for a line that is none, with its number."""
    return list(lines.objects(text, "the inference load", _KEY))


def readable(text: str) -> list[Event]:
    """The events of an output that was cut off, as far as they can be read."""
    return list(lines.readable(text, _KEY))


def decoded(line: str) -> Event | None:
    """One line's event, or None when it is none."""
    return lines.decoded(line, _KEY)


def refusal(found: list[Event], returncode: int, stderr: str) -> ProbeError | None:
    """Why the load has no result, or None if it came to its end."""
    for event in found:
        if event["event"] == "refused":
            kind = Unsupported if event.get("outcome") == "unsupported" else Failed
            return kind(str(event.get("reason")), event.get("remedy"))
    if returncode == 0 and found and found[-1]["event"] == "done":
        return None
    last = (stderr.strip().splitlines() or ["it printed nothing to standard error"])[-1][:300]
    return Failed(f"load_failed: the inference load ended with status {returncode}: {last}")


def number(event: Event, key: str) -> float:
    """A finite number of an event. Raises Failed, naming what is wrong."""
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Failed(f"tool_output: {event.get('event')} of the load has no number {key!r}: {str(value)[:40]}")
    return float(value)


def numbers(event: Event, key: str) -> list[float]:
    """A list of finite numbers of an event. Raises Failed."""
    values = event.get(key)
    if not isinstance(values, list):
        raise Failed(f"tool_output: {event.get('event')} of the load has no list {key!r}")
    return [number({"event": event.get("event"), key: value}, key) for value in values]
