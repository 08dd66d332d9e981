"""A file that the page cache must keep: ``python -m tests.probes.feed.held_in_memory FILE`` holds it until it is
ended."""

from __future__ import annotations

import ctypes
import mmap
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held_in_memory(path: Path) -> Iterator[None]:
    """Pages that are locked into memory cannot be dropped from the cache by anybody's advice."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size = ctypes.c_size_t(path.stat().st_size)
    with path.open("rb") as file:
        at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), ctypes.c_long(0))
    address = ctypes.c_void_p(at)
    assert libc.mlock(address, size) == 0
    try:
        yield
    finally:
        libc.munmap(address, size)


if __name__ == "__main__":
    with held_in_memory(Path(sys.argv[1])):
        signal.pause()
