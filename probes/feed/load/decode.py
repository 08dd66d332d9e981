"""What a loader does to a sample before the accelerator takes it: named costs, the same for every arm."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

from probes.feed.load.reader import Buffer, Decode

NAMES = ("none", "crc32", "normalize", "spin:SECONDS", "sleep:SECONDS")


def by_name(name: str, samples: float) -> Decode | None:
    """The decode of one block that holds ``samples`` samples; None for ``none``. Raises ValueError for other names.

    ``crc32``: the checksum that record readers verify. ``normalize``: bytes to floats from 0 to 1. ``spin``: a known
    CPU time for each sample. ``sleep``: a known time without a CPU.
    """
    kind, _, seconds = name.partition(":")
    if kind == "none":
        return None
    if kind in ("spin", "sleep"):
        cost = float(seconds) * samples
        return (lambda _: _spin(cost)) if kind == "spin" else (lambda _: time.sleep(cost))
    plain: dict[str, Callable[[Buffer], None]] = {"crc32": _crc32, "normalize": _normalize}
    if kind not in plain:
        raise ValueError(f"unknown decode {name!r}; known are {', '.join(NAMES)}")
    return plain[kind]


def _crc32(buffer: Buffer) -> None:
    zlib.crc32(buffer)


def _normalize(buffer: Buffer) -> None:
    import numpy as np

    np.multiply(np.frombuffer(buffer, np.uint8), np.float32(1 / 255), dtype=np.float32)


def _spin(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        zlib.crc32(_SPIN)


_SPIN = bytes(16 << 10)
