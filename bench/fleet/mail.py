"""Letters between the members of a run, as small files in one folder on storage that all of them see.

::

    DIR/.mail/beat.RANK    who is there, where it can be reached, and a count that goes up     (the member, each second)
    DIR/.mail/job.RANK     the script that it is to run, or that all is over                    (the leader)
    DIR/.mail/reply.RANK   what became of the script                                            (the member)
    DIR/.mail/leader       who leads; one that was taken for dead sees there that it no longer does

Scripts that lie there are run, so the folder must be of the user who runs them and of nobody else: that is looked at
through a descriptor, each time it is opened. Every letter is put in place by rename(2), which also makes an NFS client
look anew at what it has cached of the folder; nothing is synced, because no letter outlives its run.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from bench.fleet.errors import FleetError
from bench.store.errors import one_line, why

MAIL = ".mail"
MOST_BYTES = 16 << 20
SILENT_BEATS = 20
_BEATS_TO_TELL = 3
Letter = Mapping[str, Any]


def beat_seconds(members: int) -> float:
    """Between two beats: a hundred small files a second are no load for any shared storage."""
    return max(1.0, members / 100)


class Mail:
    """The folder, opened. Raises FleetError when it cannot be made, or is not the user's alone."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MAIL
        with suppress(FileExistsError):
            self._guarded(self.path.mkdir, mode=0o700)
        self._fd = self._guarded(os.open, self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._check()
        except FleetError:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def put(self, name: str, letter: Letter) -> None:
        """In place of what is there. Raises FleetError."""
        self._guarded(self._put, name, json.dumps(letter).encode())

    def get(self, name: str) -> Letter | None:
        """None where there is none, where it is no letter, and where the storage does not answer just now."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
            with os.fdopen(fd, "rb") as file:
                regular = stat.S_ISREG(os.fstat(fd).st_mode)
                data = file.read(MOST_BYTES + 1) if regular else b""
            found = json.loads(data) if len(data) <= MOST_BYTES else None
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _put(self, name: str, data: bytes) -> None:
        temp = f".{name}.{secrets.token_hex(4)}"
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            os.rename(temp, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError:
            with suppress(OSError):
                os.unlink(temp, dir_fd=self._fd)
            raise

    def _check(self) -> None:
        """Ours, as this file system sees us: what we make there must have the same owner (root may be mapped)."""
        self._guarded(self._put, "check", b"{}")
        folder, ours = os.fstat(self._fd), self._guarded(os.stat, "check", dir_fd=self._fd)
        if folder.st_uid != ours.st_uid or folder.st_mode & 0o077:
            raise FleetError(
                one_line(f"{self.path}: others can write there, or it is of another user, and what lies there is run; "
                         "remove it, or name a folder of your own")
            )  # fmt: skip

    def _guarded(self, call: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return call(*arguments, **more)
        except FileExistsError:
            raise
        except OSError as error:
            raise FleetError(one_line(f"{self.path}: {why(error)}; name a folder that every node can write")) from error


class Sight(Enum):
    """What one knows of another member."""

    UNKNOWN = "was not looked at for long enough"
    ABSENT = "has not come"
    HERE = "is here"
    GONE = "has fallen silent"
    LEFT = "has left"


@dataclass(slots=True)
class _Seen:
    beat: Letter | None
    first: float
    looked: float
    changed: float | None = None


@dataclass(slots=True)
class Watch:
    """Who is alive, by beats that change: no two clocks are compared, and a beat of an earlier start counts nothing."""

    mail: Mail
    hosts: tuple[str, ...]
    _seen: dict[int, _Seen] = field(default_factory=dict)

    @property
    def silence(self) -> float:
        """After so many seconds without a beat a member is taken for dead."""
        return SILENT_BEATS * beat_seconds(len(self.hosts))

    def look(self, rank: int) -> Sight:
        now = time.monotonic()
        seen = self._seen.get(rank)
        if seen is None:
            self._seen[rank] = _Seen(self._beat(rank), now, now)
            return Sight.UNKNOWN
        if now - seen.looked >= beat_seconds(len(self.hosts)) / 2:
            beat, seen.looked = self._beat(rank), now
            if beat is not None and beat != seen.beat:
                seen.beat, seen.changed = beat, now
        if seen.changed is None or seen.beat is None:
            known = now - seen.first > _BEATS_TO_TELL * beat_seconds(len(self.hosts))
            return Sight.ABSENT if known else Sight.UNKNOWN
        if seen.beat.get("left") is True:
            return Sight.LEFT
        return Sight.HERE if now - seen.changed <= self.silence else Sight.GONE

    def card(self, rank: int) -> Letter:
        """What that member last said of itself."""
        seen = self._seen.get(rank)
        return (seen.beat if seen else None) or {}

    def _beat(self, rank: int) -> Letter | None:
        """Its beat, if that is of the host which has this rank here: another list of hosts is another run."""
        beat = self.mail.get(f"beat.{rank}")
        sound = beat is not None and beat.get("host") == self.hosts[rank] and isinstance(beat.get("who"), str)
        return beat if sound else None
