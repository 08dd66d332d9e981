"""Reading files that others name: regular ones of bounded size; below a folder, where a document names them.

A path may point to a device, a pipe that nobody writes to, ten gigabytes, or, out of a run document or a file of
declared checks, out of the folder. None of it is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bench.errors import UserError, why

_CHUNK_BYTES = 1 << 20


class NotReadable(ValueError):
    """Why a file is not read, in words that follow its name: ``is a link, ...``."""


@contextmanager
def opened_below(folder: Path, relative: str, most_bytes: int) -> Iterator[BinaryIO]:
    """Open the regular file at that path below the folder. Raises NotReadable."""
    parts = PurePosixPath(relative).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in relative:
        raise NotReadable("lies outside of the folder")
    with ExitStack() as opened:
        try:
            at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, at)
            for part in parts[:-1]:
                at = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                opened.callback(os.close, at)
            _look(os.stat(parts[-1], dir_fd=at, follow_symlinks=False), most_bytes)
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            file = opened.enter_context(os.fdopen(os.open(parts[-1], flags, dir_fd=at), "rb"))
            _look(os.fstat(file.fileno()), most_bytes)
        except (OSError, UnicodeError) as error:
            raise NotReadable(_in_words(error)) from error
        yield file


def read_regular(path: Path, most_bytes: int, *, follow: bool = True) -> bytes:
    """Return the content of that regular file. Raises OSError, and NotReadable for one that is none, or larger."""
    # O_NONBLOCK: opening a named pipe must not wait for a writer. It changes nothing for a regular file.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        _look(os.fstat(file.fileno()), most_bytes)
        return b"".join(_chunks(file, most_bytes))


def read_text(path: Path, most_bytes: int = 1 << 20) -> str:
    """The text of a file that a person wrote. Raises FileNotFoundError; UserError, one line, for any other reason."""
    try:
        data = read_regular(path, most_bytes)
        return data.decode("utf-8")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8") from error
    except (OSError, ValueError) as error:  # of values: no regular file, too large, or no file's name
        raise UserError(f"{path}: {why(error)}") from error


def read_below(folder: Path, relative: str, most_bytes: int) -> bytes:
    """Return the content of that file. Raises NotReadable."""
    with opened_below(folder, relative, most_bytes) as file:
        return b"".join(_chunks(file, most_bytes))


def digest_below(folder: Path, relative: str, most_bytes: int) -> str:
    """Return the sha256 of that file, in hexadecimal. Raises NotReadable."""
    digest = hashlib.sha256()
    with opened_below(folder, relative, most_bytes) as file:
        for chunk in _chunks(file, most_bytes):
            digest.update(chunk)
    return digest.hexdigest()


def _look(found: os.stat_result, most_bytes: int) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise NotReadable("is a link, which is not followed")
    if not stat.S_ISREG(found.st_mode):
        raise NotReadable("is no regular file")
    if found.st_size > most_bytes:
        raise NotReadable(f"is larger than {most_bytes >> 20} MiB")


def _chunks(file: BinaryIO, most_bytes: int) -> Iterator[bytes]:
    """All of it; NotReadable for one that grows while it is read."""
    left = most_bytes
    try:
        while chunk := file.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise NotReadable(f"is larger than {most_bytes >> 20} MiB")
            yield chunk
    except OSError as error:
        raise NotReadable(_in_words(error)) from error


def _in_words(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "has a name that is none here"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "lies behind a link, which is not followed"
    if error.errno == errno.ENOENT:
        return "is not there"
    return f"cannot be read: {why(error)}"
