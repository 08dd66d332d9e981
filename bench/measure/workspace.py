"""The folder of our own making: the only place that a probe writes to.

``<directory>/.aiready-bench-<id>/`` is created anew (never an existing folder), holds a marker with the owner's
process, and is removed on every way out; what a killed run left behind is removed by the next run on that directory.
The file system may be the very thing that hangs, so each touch of it is made by a short-lived child of this module
(``python -m bench.measure.workspace create|remove ...``, standard library only) that the caller can stop waiting for.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.measure import procfs

PREFIX = ".aiready-bench-"
MARKER = "OWNED-BY-AIREADY-BENCH"
_RESERVE_RATIO = 0.05  # a file system filled to the brim harms others: leave 5 %, at most 1 GiB
_RESERVE_BYTES = 1 << 30
_CHILD_TIMEOUT = 30.0


def check_place(directory: str) -> None:
    """Raises ValueError, one line, if nothing may be written below ``directory``, OSError if it cannot be looked at."""
    info = os.stat(directory)
    if not stat.S_ISDIR(info.st_mode):
        raise ValueError(f"not_a_directory: {directory} is not a directory")
    real = os.path.realpath(directory) + "/"
    if real.startswith(("/proc/", "/sys/", "/dev/")) and not real.startswith("/dev/shm"):
        raise ValueError(f"refused: {directory} is not a place for data")
    if not os.access(directory, os.W_OK | os.X_OK) or os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise ValueError(f"read_only: cannot write to {directory}")


def check_room(directory: str, need: int) -> None:
    """Raises ValueError, one line, if there is no room for ``need`` bytes and the reserve."""
    disk = os.statvfs(directory)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    reserve = min(int(size * _RESERVE_RATIO), _RESERVE_BYTES)
    if need > free - reserve:
        needs = f"needs {need / 1e6:.0f} MB and leaves {reserve / 1e6:.0f} MB free"
        raise ValueError(f"no_space: {needs}, but {directory} has {free / 1e6:.0f} MB")


def create(directory: str, name: str, need: int, owner: int) -> str:
    """Make the folder and its marker; sweep what dead runs left. Returns the folder."""
    check_place(directory)
    sweep(directory)
    check_room(directory, need)
    folder = os.path.join(directory, PREFIX + name)
    os.mkdir(folder, 0o700)
    marker = {"pid": owner, "start": _start(owner), "boot": procfs.boot_id(), "host": os.uname().nodename}
    with open(os.path.join(folder, MARKER), "x", encoding="utf-8") as file:
        json.dump(marker, file)
    return folder


def remove(folder: str) -> None:
    """Remove a folder that carries our name and our marker; anything else is left alone."""
    if not os.path.basename(folder).startswith(PREFIX) or os.path.islink(folder):
        return
    if os.path.isfile(os.path.join(folder, MARKER)) or not os.listdir(folder):
        shutil.rmtree(folder)


def sweep(directory: str) -> None:
    """Remove the folders of runs of this machine that no longer live."""
    for entry in os.listdir(directory):
        folder = os.path.join(directory, entry)
        if entry.startswith(PREFIX) and _is_dead(folder):
            with suppress(OSError):
                remove(folder)


def _is_dead(folder: str) -> bool:
    try:
        marker = json.loads(Path(folder, MARKER).read_text(encoding="utf-8"))
        alive = marker["boot"] == procfs.boot_id() and _start(int(marker["pid"])) == marker["start"]
        # On a shared file system it may be another node's, whose life cannot be seen from here.
        return marker["host"] == os.uname().nodename and not alive
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _start(pid: int) -> str | None:
    process = procfs.process(pid)
    return process and process.start


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["create", directory, name, need, owner]:
                print(create(directory, name, int(need), int(owner)))  # noqa: T201
            case ["remove", folder]:
                remove(folder)
            case _:
                return 2
    except ValueError as error:
        print(error)  # noqa: T201
        return 1
    except OSError as error:
        word = "missing" if isinstance(error, FileNotFoundError) else "unusable"
        print(f"{word}: {error.filename or arguments[1]}: {error.strerror}")  # noqa: T201
        return 1
    return 0


def _child(*arguments: str) -> str:
    """Run one of the commands above in a child. Raises Unsupported with its line, TimedOut if the path hangs."""
    from bench.measure import tools
    from bench.measure.probe import TimedOut, Unsupported
    from bench.model import Code

    argv = [sys.executable, "-S", "-P", "-m", "bench.measure.workspace", *arguments]
    try:
        done = tools.run(argv, timeout=_CHILD_TIMEOUT, env=tools.python_environment())
    except TimedOut as error:
        raise TimedOut(Code.PATH_HANGS, f"{arguments[1]} did not answer within {_CHILD_TIMEOUT:.0f} s") from error
    if done.returncode:
        reason = done.stdout.strip() or done.stderr.strip()[-300:]
        raise Unsupported.told(reason, f"give another directory: --storage DIR (this one: {arguments[1]})")
    return done.stdout.strip()


@contextmanager
def workspace(directory: Path, need: int, name: str) -> Iterator[Path]:
    """A fresh folder below ``directory`` with room for ``need`` bytes, removed at the end.

    Raises Unsupported (no space, read-only, missing, not a directory), TimedOut (the path hangs).
    """
    unique = f"{name}-{time.monotonic_ns() % 10**6:06d}"
    folder = Path(_child("create", str(directory), unique, str(need), str(os.getpid())))
    try:
        yield folder
    finally:
        _child("remove", str(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
