"""What a directory is, before anything is measured on it: one JSON line on standard output.

Run as a child of its own, because each touch of a path may hang for ever (a file server that is gone), and a caller
can stop waiting for a child only. Fields: ``path`` (absolute), ``error`` (one line, or null), ``fstype``, ``source``,
``device`` (``major:minor``; of a loop device the disk below its file, whose counters tell a cache from a disk),
``free_bytes``, ``size_bytes``, ``direct`` and ``direct_error`` (does O_DIRECT work?), ``io_uring`` and
``io_uring_error`` (does the kernel allow it to us?), ``cpus`` (that this process may use).
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.measure.node import mount_of
from probes.common import io_counters as witness

_IO_URING_SETUP = 425  # the same number on every architecture that Linux runs on since it was added in 5.1
_BLOCK = 4096


def main(arguments: list[str]) -> int:
    print(json.dumps(facts(arguments[0])))
    return 0


def facts(directory: str) -> dict[str, Any]:
    """See the module. Never raises for what the directory is; that is ``error``."""
    known: dict[str, Any] = {"path": os.path.abspath(directory), "error": None, "cpus": len(os.sched_getaffinity(0))}
    known["io_uring"], known["io_uring_error"] = _tried(_set_up_io_uring)
    try:
        known |= _of_path(directory)
    except OSError as error:
        word = "missing" if isinstance(error, FileNotFoundError) else "unusable"
        known["error"] = f"{word}: {directory}: {error.strerror}"
    return known


def _of_path(directory: str) -> dict[str, Any]:
    info, disk, mount = os.stat(directory), os.statvfs(directory), mount_of(Path(directory))
    fstype = mount.fstype if mount else "unknown"
    device = f"{os.major(info.st_dev)}:{os.minor(info.st_dev)}"
    if (disk_in_memory := witness.memory_device(device)) is not None:
        raise OSError(errno.ENODEV, f"is on {disk_in_memory}, a disk in memory")
    below = witness.below_loop(device)
    direct, why = _tried(lambda: _read_directly(directory, fstype))
    if below is None:
        direct, why = False, "it is on a loop device whose file is in memory, or cannot be seen"
    return {
        "fstype": fstype,
        "source": mount.source if mount else "unknown",
        "device": below or device,
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "size_bytes": disk.f_blocks * disk.f_frsize,
        "direct": direct,
        "direct_error": why,
    }


def _tried(action: Callable[[], None]) -> tuple[bool, str | None]:
    try:
        action()
    except OSError as error:
        return False, error.strerror
    return True, None


def _set_up_io_uring() -> None:
    """Raises OSError where the kernel, a sysctl or a seccomp filter forbids io_uring."""
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)  # struct io_uring_params, all zero: one plain ring
    fd = libc.syscall(_IO_URING_SETUP, 1, parameters)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(fd)


def _read_directly(directory: str, fstype: str) -> None:
    """Raises OSError where a file of this directory cannot be read round the page cache."""
    if fstype == "zfs" and witness.zfs_version() < witness.FIRST_DIRECT_ZFS:
        raise OSError(errno.EOPNOTSUPP, "ZFS before 2.3 takes O_DIRECT and reads from its cache")
    fd = _nameless(directory)
    try:
        with mmap.mmap(-1, _BLOCK) as block:
            os.pwritev(fd, [block], 0)
            os.preadv(fd, [block], 0)
    finally:
        os.close(fd)


def _nameless(directory: str) -> int:
    """A file opened with O_DIRECT that leaves no name behind, whatever happens to this process."""
    with suppress(OSError):
        return os.open(directory, os.O_TMPFILE | os.O_DIRECT | os.O_RDWR, 0o600)
    fd, name = tempfile.mkstemp(prefix=".aiready-bench-direct-", dir=directory)
    os.close(fd)
    try:
        return os.open(name, os.O_DIRECT | os.O_RDWR)
    finally:
        os.unlink(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
