"""What the load on services says over its pipe: one JSON object a line, typed at both ends. Seconds throughout.

No record holds a header, a body, or what a service answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.measure.jsonl import records
from bench.measure.probe import Failed, ProbeError, Unsupported
from bench.model import Code


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the pipe."""


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """What became of request ``n`` of a service; ``scheduled`` after the start, sent ``lag`` later.

    ``whole``: from the scheduled moment to the last byte, or to when it was given up. Of a connection that was opened
    for it (``kept`` is false): ``resolve``, ``connect``, ``tls``. ``first_byte``: from being sent to the headers.
    ``certificate``: how long that of the service is valid. ``code``: how it failed, with ``detail`` in words of ours.
    """

    service: str
    n: int
    scheduled: float
    lag: float
    whole: float
    kept: bool
    resolve: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    certificate: float | None = None
    code: str | None = None
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.code is None


@dataclass(frozen=True, slots=True)
class Began(Record):
    """When the schedule of a service began, by the machine's monotonic clock."""

    service: str
    at: float


@dataclass(frozen=True, slots=True)
class Refused(Record):
    """There is nothing to measure."""

    outcome: Literal["unsupported", "failed"]
    reason: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Done(Record):
    seconds: float = 0.0


KINDS: Mapping[str, type[Record] | None] = {"began": Began, "answer": Answer, "refused": Refused, "done": Done}
_NAMES = {kind: name for name, kind in KINDS.items()}


def read(text: str, *, cut: bool = False) -> list[Record]:
    """The records of an output; of one that was ``cut`` off, those that can be read. Raises Failed."""
    return records(text, "the load on the services", KINDS, cut=cut)


def answers(found: Sequence[Record]) -> dict[str, list[Answer]]:
    """Those of each service, in the order in which they were scheduled."""
    made: dict[str, list[Answer]] = {}
    for one in found:
        if isinstance(one, Answer):
            made.setdefault(one.service, []).append(one)
    return {name: sorted(those, key=lambda answer: answer.n) for name, those in made.items()}


def not_let_in(found: Sequence[Answer]) -> bool:
    """Was none of them let in (401, 403)?"""
    return bool(found) and all(answer.code == Code.UNAUTHORIZED for answer in found)


def refusal(found: Sequence[Record], returncode: int, stderr: str) -> ProbeError | None:
    """Why the load has no result, or None if it came to its end."""
    if refused := next((one for one in found if isinstance(one, Refused)), None):
        kind = Unsupported if refused.outcome == "unsupported" else Failed
        return kind.told(refused.reason, refused.remedy)
    if returncode == 0 and found and isinstance(found[-1], Done):
        return None
    last = (stderr.strip().splitlines() or ["it printed nothing to standard error"])[-1][:300]
    return Failed(Code.LOAD_FAILED, f"the load on the services ended with status {returncode}: {last}")


def line(record: Record) -> str:
    """One line of the pipe. A number that is not finite is an error of ours."""
    fields: dict[str, Any] = {name: value for name, value in asdict(record).items() if value is not None}
    return json.dumps({"kind": _NAMES[type(record)], **fields}, allow_nan=False)
