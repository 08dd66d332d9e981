"""What a reader of a format gives: a `Shard` of samples, or `Bad` with what is wrong."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from bench.model import Code

LARGEST_SAMPLE = 512 << 20


class Bad(ValueError):
    """What is wrong with a sample or a file: ``word: sentence``, as `probes.data.parse` counts them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample, read. ``at``: where it lies in its file; ``names``: its fields; ``digest`` of what it holds.

    ``decoded``: the bytes on storage that were decoded for it, and the seconds of CPU time that this took.
    """

    at: str
    size: int
    names: tuple[str, ...]
    digest: bytes
    fault: str | None = None
    decoded: tuple[int, float] = (0, 0.0)


@dataclass(slots=True)
class Shard:
    """A file's samples. ``exact``: ``count`` is no estimate. ``read`` takes a place from 0 to below 1."""

    count: int
    read: Callable[[float], Sample]
    exact: bool = True


@contextmanager
def regular_file(path: Path) -> Iterator[BufferedReader]:
    """A regular file, opened for reading from the storage and not from memory. Raises Bad, OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Bad("unreadable: it is no regular file")
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield file


def checksum(path: Path) -> str:
    """SHA-256 of a whole file, in hexadecimal."""
    with regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_of(at: str, data: bytes, names: Sequence[str], check: Callable[[], object]) -> Sample:
    """A sample whose ``check`` raises for what is wrong with it."""
    fault, seconds = timed(check)
    return Sample(at, len(data), tuple(names), hashlib.sha256(data).digest(), fault, (len(data), seconds))


def timed(check: Callable[[], object]) -> tuple[str | None, float]:
    """What the check raised, and the CPU time that it took: waiting for the storage, or for others, is not in it."""
    began = time.process_time()
    fault = fault_of(check)
    return fault, time.process_time() - began


def fault_of(check: Callable[[], object]) -> str | None:
    """What the check raised, as one line; None where it passed. Libraries raise dozens of kinds for damaged bytes."""
    try:
        check()
    except Bad as bad:
        return str(bad)
    except ImportError as error:  # which says nothing of the data
        return f"{Code.PACKAGE_MISSING}: {error.name} is not installed"
    except (MemoryError, RecursionError) as error:
        return f"too_large: it needs more memory than a decoder may have ({type(error).__name__})"
    except Exception as error:  # noqa: BLE001
        return f"undecodable: {type(error).__name__}: {printable(error)}"
    return None


def printable(error: Exception) -> str:
    """A library's own words without what they may quote of the sample."""
    first = (str(error).strip().splitlines() or [""])[0]
    return "".join(c if c.isprintable() else "?" for c in re.split("['\"<]", first)[0])[:120].strip()
