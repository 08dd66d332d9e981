"""What the load printed, checked: JSON lines to events. Pure; a line that is not one costs the run, by name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from bench.measure.probe import Failed, ProbeError, Unsupported

Event = Mapping[str, Any]


def events(text: str) -> list[Event]:
    """The events of a whole output. Raises Failed for garbage, with the line's number."""
    return list(_each(text))


def _each(text: str) -> Iterator[Event]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        event = decoded(line)
        if event is None:
            raise Failed(f"garbage: line {number} of the load's output is not an event: {line[:80]!r}")
        yield event


def decoded(line: str) -> Event | None:
    """One line's event, or None when it is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


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
        raise Failed(f"garbage: {event.get('event')} of the load has no number {key!r}: {str(value)[:40]}")
    return float(value)


def numbers(event: Event, key: str) -> list[float]:
    """A list of finite numbers of an event. Raises Failed."""
    values = event.get(key)
    if not isinstance(values, list):
        raise Failed(f"garbage: {event.get('event')} of the load has no list {key!r}")
    return [number({"event": event.get("event"), key: value}, key) for value in values]
