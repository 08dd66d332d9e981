"""The options of every probe that measures against a peer: its key, and how much it may be sent."""

from __future__ import annotations

import math
from contextlib import suppress

from bench.measure.probe import Option


def bits(text: str) -> float:
    """``500M`` or ``1.5G`` as bits per second (decimal, as iperf3 counts rates). Raises ValueError."""
    factor = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1:].upper(), 1.0)
    with suppress(ValueError):
        value = float(text if factor == 1.0 else text[:-1]) * factor
        if 0 < value < math.inf:
            return value
    raise ValueError(f"{text!r} is not a rate above 0; give 500M or 1G say")


def _usable(path: str) -> None:
    from probes.peer.protocol import read_key

    read_key(path)


_KEY_HELP = "file with the key that the peer shares with us"
KEY_FILE = Option("key_file", _KEY_HELP, check=_usable, affects_comparability=False)
MAX_RATE = Option("max_rate", "ceiling in bit/s for bandwidth tests, 500M say", type=bits)
