"""What the transports that follow a program while it runs have in common: that program, and what a script prints."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import socket
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.fleet.job_script import KILL_AFTER_SECONDS, TIMED_OUT, decoded
from bench.fleet.transport.base import OnReply, Replies, Reply, ReplyKind, last_line
from bench.measure import tools
from bench.measure.probe import ProbeError
from bench.measure.tools import Signals
from bench.store.errors import one_line

_MOST_OUTPUT = 8 << 20
_POLL_SECONDS = 0.05
_FEED_SECONDS = 0.002  # between two fills of a socket, which holds 200 kB; an archive has 60 MB
END = "AIREADY-EXIT"
#: Run ``$script`` for at most ``$limit`` seconds. What it prints is bounded, in base64, and followed by a line with its
#: status and the end of its standard error. A server that it leaves behind holds descriptor 8, and with it this shell,
#: because Slurm ends everything of a step when its tasks have ended.
RUN = f"""\
exec 9>&1
{{ rc=$({{ {{ {{ timeout -k {KILL_AFTER_SECONDS} "$limit" sh -c "$script" 2>&4 3>&- 4>&- 9>&-; echo $? >&3; }} |
head -c {_MOST_OUTPUT} | base64 >&9; }} 4>&1 | tail -c 600 | base64 | tr -d '\\n'; }} 3>&1)
echo {END} $rc >&9; }} 8>&1 | cat
"""


class _Tail:
    """A file that a program writes to, and the whole lines that have come since they were last asked for."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its Child
        self._at, self._rest = 0, b""

    def lines(self) -> list[str]:
        size = os.fstat(self.file.fileno()).st_size
        data = os.pread(self.file.fileno(), size - self._at, self._at)
        self._at += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]


class Child:
    """A program at work. Its output goes to files, so that it may go on when nobody listens; ``send`` never waits.

    Raises UserError when it cannot be started.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.out, self.err = _Tail(), _Tail()
        self._feed, theirs = socket.socketpair()
        try:
            with theirs, theirs.makefile("rb") as stdin:
                self._process: Any = tools.spawn(argv, stdin=stdin, stdout=self.out.file, stderr=self.err.file, env=env)
        except ProbeError as error:
            raise UserError(one_line(error.reason)) from error
        self._unsent, self._last = memoryview(b""), False

    def send(self, data: bytes, last: bool = False) -> None:
        """Give it this on its standard input, as it takes it; nothing follows the ``last``."""
        self._unsent, self._last = memoryview(bytes(self._unsent) + data), last
        self.is_running()

    def is_running(self) -> bool:
        """Whether it still runs; hands over what it takes of its input."""
        with suppress(OSError):  # it takes no more now, or it has ended: its output tells
            while self._unsent:
                self._unsent = self._unsent[self._feed.send(self._unsent, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            if self._last:
                self._feed.shutdown(socket.SHUT_WR)
        return self._process.poll() is None

    def polls(self, seconds: float, signals: Signals | None) -> Iterator[None]:
        """Each time something may have come, also when it has ended; at most for so long. Raises Interrupted."""
        until, running = time.monotonic() + seconds, True
        while running and time.monotonic() < until:
            running = self.is_running()
            yield
            tools.pause(_FEED_SECONDS if self._unsent else _POLL_SECONDS, signals)

    def end(self) -> None:
        tools.end(self._process)
        self.close()

    def close(self) -> None:
        """Let go of it, when it has ended."""
        for file in (self._feed, self.out.file, self.err.file):
            file.close()


class Scripts:
    """The two ways of `bench.fleet.transport.base.Transport` to the hosts, where all hosts are at work at once."""

    def each(
        self, commands: Mapping[str, str], limit: float, *, width: int | None = None, listen: OnReply = lambda _: None
    ) -> dict[str, Reply]:
        return self._each(commands, limit, None, listen)

    def put(
        self, source: Path, places: Mapping[str, str], pythons: Mapping[str, str], limit: float
    ) -> dict[str, Reply]:
        """The file is the input of a script."""
        commands = {host: f"umask 077; exec cat >{shlex.quote(place)}" for host, place in places.items()}
        return self._each(commands, limit, source, lambda _: None)

    def _each(self, commands: Mapping[str, str], limit: float, file: Path | None, listen: OnReply) -> dict[str, Reply]:
        raise NotImplementedError


def ended(replies: Replies, host: str, lines: Iterable[str], last: str) -> None:
    """What `RUN` printed on that host has come to its end: the ``last`` line, and those before."""
    status, _, complaint = last.removeprefix(END).strip().partition(" ")
    rc = int(status) if re.fullmatch(r"[0-9]{1,3}", status) else 255
    if rc in TIMED_OUT:
        replies.give(host, ReplyKind.LATE, "its script reached the limit")
    else:
        out = decoded("".join(lines)[: 2 * _MOST_OUTPUT])
        replies.give(host, ReplyKind.DONE, last_line(decoded(complaint)), rc, out)


def limited(names: Collection[str], pattern: str) -> list[str]:
    """The names that ``--limit`` leaves: ``all``, or words with commas between, each a name or a shell pattern;
    ``!WORD`` leaves out. Raises UserError for a word that fits none.
    """
    kept: set[str] = set()
    words = [word.strip() for word in pattern.split(",") if word.strip()]
    if all(word.startswith("!") for word in words):
        words = ["all", *words]
    for word in sorted(words, key=lambda word: word.startswith("!")):
        found = set(names) if word == "all" else set(fnmatch.filter(names, word.removeprefix("!")))
        if not found:
            raise UserError(one_line(f"--limit {word}: fits none of the {len(names)} hosts"))
        kept = kept - found if word.startswith("!") else kept | found
    return [name for name in names if name in kept]
