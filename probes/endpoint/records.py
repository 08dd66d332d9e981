"""What the load on a server says over its pipe: one JSON object a line, typed at both ends. Seconds throughout.

No record holds a key, a prompt, or what the server answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from probes.common.pipe import Done, Pipe, Record, Refused
from probes.common.sustained import SearchEnd

Place = Literal["node", "peer", "elsewhere"]
Stage = Literal["warm-up", "trial", "held"]


@dataclass(frozen=True, slots=True)
class Opened(Record):
    """The first real completion: how the server is spoken to, and how long it took (its model may have been loaded).

    ``extras``: what it takes beyond the plain protocol. ``words_a_token`` of our prompts, None where it counts none.
    ``place``: on this node, on the host of the named ``peer``, or elsewhere.
    """

    api: Literal["chat", "completions"]
    model: str
    extras: tuple[str, ...]
    seconds: float
    words_a_token: float | None = None
    place: Place = "elsewhere"
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """What became of one request. Seconds after its window's start; ``chunks``: when each that carries content came.

    ``late``: by how much each of those moments can be late, because the client was busy. ``counts``: tokens up to each
    chunk, where the server says that continuously. ``tokens``: by ``counted``. ``code``: how it failed. ``lag``: from
    the scheduled moment to when it was sent. ``connect``: seconds of a connection that was opened for it.
    """

    stage: Stage
    scheduled: float
    lag: float
    chunks: tuple[float, ...] = ()
    late: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    ended: float | None = None
    code: str | None = None
    detail: str = ""
    status: int | None = None
    retry_after: float | None = None
    token_count: int = 0
    counted: Literal["usage", "chunks"] = "chunks"
    prompt: int | None = None
    connect: float | None = None
    first_byte: float | None = None

    @property
    def failed(self) -> bool:
        return self.code is not None

    @property
    def finished(self) -> bool:
        return self.code is None

    @property
    def tokens(self) -> tuple[float, ...]:
        """When its chunks came: the moments by which an open loop is judged."""
        return self.chunks

    @property
    def output(self) -> int:
        """How many tokens to share the time after the first chunk by, itself included."""
        return max(1, self.token_count - self.first_count + 1)

    @property
    def first_count(self) -> int:
        """Tokens of the first chunk: said by the server, else its share of all."""
        if self.counts:
            return self.counts[0]
        return max(1, round(self.token_count / len(self.chunks))) if self.chunks else 0

    @property
    def first_token(self) -> float | None:
        """From the *scheduled* arrival to the first content."""
        return self.chunks[0] - self.scheduled if self.chunks else None

    @property
    def connected_first_token(self) -> float | None:
        """From when it was sent on an open connection to the first content."""
        waited = self.lag + (self.connect or 0.0)
        return max(0.0, self.chunks[0] - self.scheduled - waited) if self.chunks else None

    @property
    def token_seconds(self) -> float | None:
        """The mean time of a token after the first chunk."""
        return (self.chunks[-1] - self.chunks[0]) / (self.output - 1) if self.chunks and self.output > 1 else None

    @property
    def gaps(self) -> list[float]:
        """Between two chunks."""
        return [b - a for a, b in pairwise(self.chunks)]


@dataclass(frozen=True, slots=True)
class Window(Record):
    """An open-loop window: when it ``began`` (monotonic clock), the requests planned and sent, the rate offered.

    ``cpu_ratio`` and ``delay_ratio``: shares of its time in which the client computed, and waited for a CPU.
    ``stopped``: why the rest was not sent.
    """

    stage: Stage
    began: float
    rate: float
    seconds: float
    planned: int
    sent: int
    output: int
    cpu_ratio: float
    first_token_limit: float
    inter_token_limit: float
    delay_ratio: float | None = None
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class SelfCheck(Record):
    """The client against an echo of its own, which stamps each chunk as it sends it.

    ``delays``: from that stamp to the client's, at the window's own load. ``highest``: chunks a second that it read
    with a p99 under ``limit``; ``reached`` where more would not have been.
    """

    delays: tuple[float, ...]
    streams: int
    chunks_per_second: float
    highest: float
    limit: float
    reached: bool


PIPE = Pipe("the load on the endpoint", {
    "begin": None, "end": None, "opened": Opened, "answer": Answer, "window": Window, "search": SearchEnd,
    "self_check": SelfCheck, "refused": Refused, "done": Done,
})  # fmt: skip
read, line, say = PIPE.read, PIPE.line, PIPE.say
