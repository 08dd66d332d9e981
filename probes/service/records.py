"""What the load on services says over its pipe: one JSON object a line, typed at both ends. Seconds throughout.

No record holds a header, a body, or what a service answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.model import Code
from probes.common.pipe import Done, Pipe, Record, Refused


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


PIPE = Pipe("the load on the services", {"began": Began, "answer": Answer, "refused": Refused, "done": Done})
read, line = PIPE.read, PIPE.line


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
