"""A node's side of a run without ssh: its heart beats, and it runs what it is told to, one script after the other.

Never blocking: the leader is a node as well, and runs scripts while it waits for those of the others.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from bench.fleet.errors import FleetError, Occupied
from bench.fleet.mail import Letter, Mail, beat_seconds
from bench.fleet.transport.base import Kind
from bench.measure import tools
from bench.measure.probe import ProbeError
from bench.measure.processes import descendants, end_all
from bench.store.errors import one_line

_MOST_OUTPUT = 8 << 20
_MOST_DETAIL = 600
_BEATS_TO_TELL = 2.5


@dataclass(slots=True)
class _Running:
    """A script at work: its process, and the files that its output goes to. ``until`` in monotonic seconds."""

    id: str
    process: Any
    files: ExitStack
    out: IO[bytes]
    err: IO[bytes]
    until: float


@dataclass(slots=True)
class Agent:
    """``card``: what the others are told of this node. ``ended``: why it is over, once the leader has said so."""

    mail: Mail
    rank: int
    card: Mapping[str, str]
    members: int
    who: str = field(default_factory=lambda: secrets.token_hex(8))
    ended: str | None = None
    _born: int = field(default_factory=time.time_ns)
    _count: int = 0
    _beaten: float = 0.0
    _before: Letter | None = None
    _seen: str = ""
    _running: _Running | None = None
    _reply: dict[str, Any] | None = None

    def begin(self) -> None:
        """Show that this node is here. Raises Occupied when another process beats for it already."""
        self._before = self.mail.get(f"beat.{self.rank}")
        if self._before is not None and not self._before.get("left"):  # killed, or still at work
            tools.pause(_BEATS_TO_TELL * beat_seconds(self.members))
            if self.mail.get(f"beat.{self.rank}") != self._before:
                raise self._occupied()
        self.mail.put(f"reply.{self.rank}", {})  # there from the beginning: "no such file" is cached for long by NFS
        self._beat()

    def step(self) -> None:
        """A beat when one is due, the end of the script that runs, the next letter. Raises Occupied."""
        if time.monotonic() - self._beaten >= beat_seconds(self.members):
            self._beat()
        self._read()
        if self._running is not None:
            self._look(self._running)
        if self._reply is not None:
            self._send(self._reply)

    def close(self) -> None:
        """End what runs and what it has left in the background, and say that this node leaves. Nothing is raised: when
        the storage is gone the others will hear the silence.
        """
        if self._running is not None:
            tools.end(self._running.process)
            self._forget(self._running)
        end_all(descendants(os.getpid()))
        with suppress(FleetError):
            self.mail.put(f"reply.{self.rank}", {})
            self.mail.put(f"beat.{self.rank}", {**self._about(), "left": True})

    def _about(self) -> dict[str, Any]:
        self._count += 1
        return {**self.card, "who": self.who, "born": self._born, "count": self._count}

    def _beat(self) -> None:
        """Raises Occupied when a process that began earlier beats for this node as well."""
        self._beaten = time.monotonic()
        other = self.mail.get(f"beat.{self.rank}")
        if other is not None and other.get("who") != self.who and other != self._before and not other.get("left"):
            born = other.get("born")
            if isinstance(born, int) and born < self._born:
                raise self._occupied()
        with suppress(FleetError):  # storage may fail for a moment; for longer, and the others hear the silence
            self.mail.put(f"beat.{self.rank}", self._about())

    def _occupied(self) -> Occupied:
        where = f"{self.mail.path.parent}: another process takes part as {self.card['host']}"
        return Occupied(one_line(f"{where}; start one task a node, and one run at a time in a folder"))

    def _read(self) -> None:
        letter = self.mail.get(f"job.{self.rank}")
        if letter is None or letter.get("to") != self.who or letter.get("id") == self._seen:
            return
        if isinstance(letter.get("ended"), str):
            self.ended = one_line(letter["ended"])
            return
        name, script, limit = (letter.get(word) for word in ("id", "script", "limit"))
        sound = isinstance(name, str) and isinstance(script, str) and isinstance(limit, int | float)
        if sound and self._running is None:
            self._seen = str(name)
            self._start(str(name), str(script), float(limit))  # type: ignore[arg-type]

    def _start(self, name: str, script: str, limit: float) -> None:
        with ExitStack() as opening:
            out, err = (opening.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            files = opening.pop_all()
        try:
            process = tools.spawn(["sh", "-c", script], stdout=out, stderr=err, env=tools.python_environment())
        except ProbeError as error:
            self._reply = {"id": name, "kind": Kind.NOT_RUN.value, "detail": error.reason}
            files.close()
            return
        self._running = _Running(name, process, files, out, err, time.monotonic() + limit)

    def _look(self, running: _Running) -> None:
        """Its end, by itself or by the limit, is the reply."""
        late = running.process.poll() is None
        if late and time.monotonic() < running.until:
            return
        tools.end(running.process)
        self._reply = {
            "id": running.id,
            "kind": (Kind.LATE if late else Kind.DONE).value,
            "rc": running.process.returncode,
            "stdout": _text(running.out, _MOST_OUTPUT),
            "detail": "its script reached the limit" if late else _last(_text(running.err, _MOST_DETAIL, last=True)),
        }
        self._forget(running)

    def _forget(self, running: _Running) -> None:
        running.files.close()
        self._running = None

    def _send(self, reply: Mapping[str, Any]) -> None:
        """Again and again until the storage has taken it."""
        try:
            self.mail.put(f"reply.{self.rank}", reply)
        except FleetError:
            return
        self._reply = None


def _text(file: IO[bytes], most: int, last: bool = False) -> str:
    size = os.fstat(file.fileno()).st_size
    start = max(0, size - most) if last else 0
    return os.pread(file.fileno(), most, start).decode("utf-8", "replace")


def _last(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(lines[-1].strip()) if lines else ""
