"""Locks that the kernel holds, so that a dead process holds none; and the node's own: one run at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import UserError

_POLL_SECONDS = 0.02


class NodeBusy(UserError):
    """Another run measures on this node now; its process id is in the message where it can be read."""


def acquire(fd: int, patience_seconds: float = 0.0) -> None:
    """Take the exclusive flock(2) of an open file or folder; it goes when that is closed, whatever ends the process.

    Raises BlockingIOError when another process still holds it in the end, OSError where there are no locks.
    """
    end = time.monotonic() + patience_seconds
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
        time.sleep(_POLL_SECONDS)


def lock_path() -> Path:
    """``BENCH_LOCK``, else a file that every user of the node can open."""
    if given := os.environ.get("BENCH_LOCK"):
        return Path(given)
    shared = Path("/run/lock")
    base = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    return base / "aiready-bench.lock"


@contextmanager
def one_run(path: Path | None = None) -> Iterator[None]:
    """Hold the node's lock. Raises NodeBusy at once if another run holds it, OSError if the file cannot be opened."""
    where = path or lock_path()
    fd = _open(where)
    try:
        try:
            acquire(fd)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            who = f" (process {holder})" if holder.isdigit() else ""
            text = f"another run is measuring on this node{who}: wait for it, or end it ({where})"
            raise NodeBusy(text, status=3) from error
        with suppress(OSError):  # another user's file can be locked but not written: then its id stays unknown
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except PermissionError:
        # Kernels forbid O_CREAT on another user's file in a sticky folder, yet a shared lock file must be shared.
        return os.open(path, os.O_RDONLY | flags)
