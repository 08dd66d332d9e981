"""Atomic files: a reader sees a whole document or none, whatever kills the writer.

The order is the one that survived 240 SIGKILLs and injected ENOSPC, EIO and EPERM in the research: a dot-temp in the
same folder, opened with O_EXCL and O_NOFOLLOW, written in full, fsynced; published by link(2), which fails where
rename(2) would replace; then the temp unlinked and the folder fsynced.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import why
from bench.measure.lock import acquire
from bench.store.errors import StoreError, one_line

_TEMP = re.compile(r"\.[A-Za-z0-9._-]+\.[0-9a-f]{8}\.tmp")
#: A temp as old as this belongs to a dead writer: writing a document takes milliseconds.
STALE_SECONDS = 3600.0
#: File systems without hard links (FAT, some FUSE and object mounts) answer link(2) with one of these.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}
#: A folder that cannot be fsynced at all; not a sign of lost data.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
_LOCK_SECONDS = 10.0

Warn = Callable[[str], None]


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    """What the file system refuses here is a StoreError in one line: where, why, and the way round it."""
    try:
        yield
    except OSError as error:
        fix = "choose a folder you may write to with --results DIR"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space there, or choose another folder with --results DIR"
        elif error.errno == errno.ELOOP:
            fix = "it is a link, which is not followed; choose a real folder with --results DIR"
        raise StoreError(f"{path}: cannot be stored: {why(error)}; {fix}") from error


def make_folder(folder: Path) -> None:
    """The folder and its parents, mode 0750 where new; each new one is made durable. Raises StoreError."""
    with _storing(folder):
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        if not missing:
            folder.mkdir(exist_ok=True)  # a file there is refused
        for made in reversed(missing):  # ``parents=True`` would make them as open as the umask allows
            made.mkdir(mode=0o750, exist_ok=True)
            fd = os.open(made.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _sync(fd)
            finally:
                os.close(fd)


@contextmanager
def opened(folder: Path, alone: bool = False) -> Iterator[int]:
    """A descriptor of the folder; the last part of its path must not be a link. ``alone``: one such writer at a time.

    Raises StoreError. Where the file system has no locks, what the writer checks first must do.
    """
    with _storing(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if alone:
            with suppress(OSError):
                try:
                    acquire(fd, _LOCK_SECONDS)
                except BlockingIOError as error:
                    raise StoreError(f"{folder}: another process is storing there; try again") from error
        yield fd
    finally:
        os.close(fd)


def publish(folder: Path, name: str, data: bytes, warn: Warn) -> Path:
    """Make ``folder/name`` with this content; never replaces. Raises StoreError, and then nothing is visible."""
    with opened(folder) as fd:
        temp = _written(folder, fd, name, data)
        try:
            with _storing(folder / name):
                _link(folder, fd, temp, name)
        finally:
            _unlink(fd, temp)
        _settle(folder, fd, name, warn)
    return folder / name


def replace(folder: Path, fd: int, name: str, data: bytes, warn: Warn = lambda _: None) -> None:
    """Put this content in the place of ``name``, atomically. Raises StoreError, and then the old content stands."""
    temp = _written(folder, fd, name, data)
    with _storing(folder / name):
        try:
            os.rename(temp, name, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            _unlink(fd, temp)
            raise
    _settle(folder, fd, name, warn)


def write_atomically(path: Path, data: bytes) -> None:
    """Put this content in the place of any ``path``, outside of the store. Raises OSError.

    The temporary name begins with a dot and does not end like the real one, so that node_exporter's textfile
    collector (``*.prom``) never reads half a file. Readable by all: an exporter runs as another user. A device or a
    pipe (``/dev/null``) is written to and stays what it is; behind a link the file that it points to is replaced.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    path = path.resolve()
    temporary = path.with_name(_temp_name(path.name))
    try:
        _write(str(temporary), data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def try_out(folder: Path, size_bytes: int) -> None:
    """Write and remove a file of that size, as a document would be. Raises StoreError."""
    with opened(folder) as fd:
        _unlink(fd, _written(folder, fd, "check", b"\0" * size_bytes))


def sweep(folder: Path, now: float | None = None) -> int:
    """Remove temps that dead writers left more than an hour ago; how many. Touches only names of our own form."""
    limit = (time.time() if now is None else now) - STALE_SECONDS
    with opened(folder) as fd:
        stale = [name for name in os.listdir(fd) if _TEMP.fullmatch(name) and _is_old(fd, name, limit)]
        return sum(_unlink(fd, name) for name in stale)


def _temp_name(name: str) -> str:
    return f".{name}.{secrets.token_hex(4)}.tmp"


def _written(folder: Path, fd: int, name: str, data: bytes) -> str:
    """The name of a new temp that holds the data durably; none is left when that fails."""
    temp = _temp_name(name)
    with _storing(folder / name):
        _write(temp, data, fd)
    return temp


def _write(temp: str, data: bytes, folder: int | None = None) -> None:
    """A new file with this content, durable; none is left when that fails, whatever it was."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temp, flags, 0o640, dir_fd=folder)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except BaseException:
        _unlink(folder, temp)
        raise
    finally:
        os.close(file)


def _link(folder: Path, fd: int, temp: str, name: str) -> None:
    try:
        os.link(temp, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {*_NO_LINKS, errno.EEXIST}:
            raise
        # Without hard links there is no atomic "only if absent"; the random id in the name makes a clash improbable.
        if name in os.listdir(fd):
            raise StoreError(f"{folder / name}: is stored already; a stored run is never replaced") from error
        os.rename(temp, name, src_dir_fd=fd, dst_dir_fd=fd)


def _settle(folder: Path, fd: int, name: str, warn: Warn) -> None:
    """Make the name durable. A failure here is a warning: the document is visible and whole, so it counts as stored."""
    try:
        _sync(fd)
    except OSError as error:
        warn(one_line(f"{folder / name}: stored, but it may not survive a power loss: {why(error)}"))


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _unlink(fd: int | None, name: str) -> bool:
    with suppress(OSError):  # gone already (renamed, swept by another), or a read-only file system: swept later
        os.unlink(name, dir_fd=fd)
        return True
    return False


def _is_old(fd: int, name: str, limit: float) -> bool:
    with suppress(OSError):
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        return stat.S_ISREG(found.st_mode) and found.st_mtime < limit
    return False
