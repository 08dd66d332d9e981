"""A directory before it is measured: is it storage, and how may it be asked? Also what ``bench doctor`` says of it.

`look` asks a child, ``python -m probes.storage.directory DIR``, because each touch of a path may hang for ever (a file
server that is gone), and a caller can stop waiting for a child only. The child prints one JSON line: a `Place`, or
an ``error``.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.measure.jsonl import record
from bench.measure.probe import Check, Failed, ProbeError, TimedOut, Tools, Unsupported
from bench.model import Code
from probes.common import io_counters
from probes.storage.fio import ANOTHER

_MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs", "hugetlbfs"))
_TIMEOUT = 15.0
_IO_URING_SETUP = 425  # the same number on every architecture that Linux runs on since it was added in 5.1


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that can be measured, as the child found it. ``cpus`` are those that this process may use.

    ``device`` is ``major:minor``; of a loop device the disk below its file, whose counters tell a cache from a disk.
    ``direct`` and ``io_uring`` say what works here, and the errors why not.
    """

    path: str
    fstype: str
    device: str
    free_bytes: int
    size_bytes: int
    direct: bool
    direct_error: str | None
    io_uring: bool
    io_uring_error: str | None
    cpus: int
    source: str = ""

    @property
    def reserve_bytes(self) -> int:
        """What is left free for others."""
        return min(self.size_bytes // 20, 1 << 30)


@dataclass(frozen=True, slots=True)
class _Unusable:
    error: str


def look(tools: Tools, directory: str) -> Place:
    """What is known of a directory. Raises Unsupported where it is no storage, TimedOut where it hangs."""
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in directory):
        raise Unsupported(Code.REFUSED, f"{directory!a} has control characters or is not UTF-8", ANOTHER)
    try:
        done = tools.python("probes.storage.directory", directory, name="place", timeout=_TIMEOUT)
    except TimedOut as error:
        raise TimedOut(Code.PATH_HANGS, f"{directory} did not answer within {_TIMEOUT:.0f} s", ANOTHER) from error
    if unusable := record(done.stdout, _Unusable):
        raise Unsupported.told(unusable.error, ANOTHER)
    found = record(done.stdout, Place)
    if done.returncode or found is None:
        said = (done.stderr or done.stdout).strip()[-200:]
        raise Failed(Code.PLACE_OUTPUT, f"no answer on the directory (status {done.returncode}): {said!r}")
    if found.fstype in _MEMORY:
        raise Unsupported(Code.TMPFS, f"{directory} is memory ({found.fstype}), not storage", ANOTHER)
    return found


def parse_counters(text: str) -> tuple[int, int] | None:
    """(bytes read, bytes written) since boot; None where the kernel counts nothing. Raises Failed on garbage."""
    try:
        return io_counters.parse_block_counters(text)
    except (ValueError, IndexError) as error:
        raise Failed(Code.PLACE_OUTPUT, f"{text[:60]!r} are no counters of a block device") from error


def checks(tools: Tools, directory: str) -> list[Check]:
    """What ``bench doctor`` says of one directory."""
    name = f"storage {directory}"
    try:
        found = look(tools, directory)
    except ProbeError as error:
        return [Check(name, False, error.reason, error.remedy)]
    free = found.free_bytes / 1e9
    if not found.direct:
        detail = f"{found.fstype}, {free:.1f} GB free, no O_DIRECT ({found.direct_error}): reads may come from a cache"
        return [Check(name, False, detail, ANOTHER)]
    ring = "io_uring" if found.io_uring else f"libaio, because io_uring is forbidden ({found.io_uring_error})"
    return [Check(name, True, f"{found.fstype}, {free:.1f} GB free, O_DIRECT, {ring}")]


# --- in the child


def main(arguments: list[str]) -> int:
    """Print what the directory is. Never fails for that; it is the ``error``."""
    directory = arguments[0]
    try:
        answer = asdict(examine(directory))
    except OSError as error:
        word = "missing" if isinstance(error, FileNotFoundError) else "unusable"
        answer = {"error": f"{word}: {directory}: {error.strerror}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def examine(path: str) -> Place:
    """Raises OSError where it cannot be used."""
    from bench.measure.node import mount_of

    info, disk, mount = os.stat(path), os.statvfs(path), mount_of(Path(path))
    fstype = mount.fstype if mount else "unknown"
    device = f"{os.major(info.st_dev)}:{os.minor(info.st_dev)}"
    if (disk_in_memory := io_counters.memory_device(device)) is not None:
        raise OSError(errno.ENODEV, f"is on {disk_in_memory}, a disk in memory")
    below = io_counters.below_loop(device)
    direct_error = _error_of(lambda: _read_directly(path, fstype))
    if below is None:
        direct_error = "it is on a loop device whose file is in memory, or cannot be seen"
    io_uring_error = _error_of(_set_up_io_uring)
    return Place(
        path=os.path.abspath(path), fstype=fstype, source=mount.source if mount else "unknown",
        device=below or device, free_bytes=disk.f_bavail * disk.f_frsize, size_bytes=disk.f_blocks * disk.f_frsize,
        direct=direct_error is None, direct_error=direct_error, io_uring=io_uring_error is None,
        io_uring_error=io_uring_error, cpus=len(os.sched_getaffinity(0)),
    )  # fmt: skip


def _error_of(action: Callable[[], None]) -> str | None:
    try:
        action()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _set_up_io_uring() -> None:
    """Raises OSError where the kernel, a sysctl or a seccomp filter forbids io_uring."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)  # struct io_uring_params, all zero: one plain ring
    fd = libc.syscall(_IO_URING_SETUP, 1, parameters)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(fd)


def _read_directly(directory: str, fstype: str) -> None:
    """Raises OSError where a file of this directory cannot be read round the page cache."""
    if fstype == "zfs" and io_counters.zfs_version() < io_counters.FIRST_DIRECT_ZFS:
        raise OSError(errno.EOPNOTSUPP, "ZFS before 2.3 takes O_DIRECT and reads from its cache")
    io_counters.try_direct(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
