"""Ending a process tree, and nothing else of the machine's.

A tool is started in a session of its own, and its children may leave that session (fio's workers do), so a process
group is not enough: the tree is walked by parent, each process is held by a pidfd, which cannot be reused, and is
asked to end, then made to.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

from bench.measure import procfs

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.02


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that a daemonised child is still found."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Process ids below ``root``, parents first."""
    children: dict[int, list[int]] = {}
    for pid in procfs.process_ids():
        if (process := procfs.process(pid)) is not None:
            children.setdefault(process.parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def session_members(session: int) -> list[int]:
    """Processes of that session: what a tool left in the background when it ended."""
    processes = ((pid, procfs.process(pid)) for pid in procfs.process_ids())
    return [pid for pid, process in processes if process and process.session == session and _running(pid)]


def end_all(pids: Iterable[int]) -> list[int]:
    """SIGTERM, three seconds, SIGKILL to these and what they start meanwhile. Returns those that would not go.

    A process in uninterruptible sleep (a dead file server) cannot be ended by anybody; it is reported, not waited for.
    """
    held: dict[int, int] = {}
    try:
        _hold(held, pids)
        for sig, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0)):
            for fd in held.values():
                with suppress(OSError):
                    signal.pidfd_send_signal(fd, sig)
            end = time.monotonic() + patience
            while any(map(_running, held)) and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
            if not any(map(_running, held)):
                return []
            _hold(held, [p for pid in list(held) for p in descendants(pid) if p not in held])
        return sorted(filter(_running, held))
    finally:
        for fd in held.values():
            os.close(fd)


def _hold(held: dict[int, int], pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(OSError):
            held[pid] = os.pidfd_open(pid)


def _running(pid: int) -> bool:
    process = procfs.process(pid)
    if process is None:
        return False
    # A leader that has ended is a zombie until its last thread has: one that hangs in the kernel still lives.
    return process.state not in ("Z", "X") or len(list((procfs.PROC / str(pid)).glob("task/*"))) > 1
