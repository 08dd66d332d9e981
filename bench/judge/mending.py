"""What would mend a starving feed, in words: other ways to read, cores that the decode lacks, the loader.

Every clause stands on a measurement of this run; where none was made, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bench.model import Bottleneck, Measurement
from bench.units import human

WAYS = "feed_fetch_bytes_per_second"
#: Another way to read must be faster by so much to be worth saying: short arms on a shared device differ by less.
_BETTER = 1.10
_WORSE = 0.90


def advice(bottleneck: Bottleneck, beside: Sequence[Measurement], demand: float | None) -> str:
    """One or two sentences for one path's measurements, or an empty string. ``demand`` in bytes a second."""
    if bottleneck == "storage":
        return " ".join(_storage(beside, demand))
    if bottleneck == "preprocess":
        return _decode(beside)
    if bottleneck == "loader":
        return _loader(beside)
    return ""


def _storage(beside: Sequence[Measurement], demand: float | None) -> Iterator[str]:
    ways = [m for m in beside if m.metric == WAYS]
    if len(ways) < 2:
        return
    usual, *others = ways  # the fetch arm's own way comes first
    fewer = [m for m in others if _readers(m) < _readers(usual) and m.value < _WORSE * usual.value]
    if fewer:
        least = min(fewer, key=_readers)
        yield f"{_readers(usual)} readers in place of {_readers(least)} give {_rate(usual)} instead of {_rate(least)}."
    best = max(ways, key=lambda m: m.value)
    if best is usual or best.value < _BETTER * usual.value or best.interval[0] <= usual.interval[1]:
        tried = ", ".join(dict.fromkeys(_difference(m, usual) for m in others))
        yield f"No other way to read was faster ({tried}): the path itself is the limit."
        return
    enough = demand is not None and best.value >= demand
    end = "which is enough." if enough else "then the path itself is the limit."
    other = _difference(best, usual)
    yield f"{other[0].upper()}{other[1:]} in place of {_plain(usual)} would give {_rate(best)}, {end}"


def _readers(m: Measurement) -> int:
    return int(m.labels.get("readers", "0"))


def _rate(m: Measurement) -> str:
    return human(m.value, WAYS, 2)


def _plain(m: Measurement) -> str:
    return f"{_readers(m)} readers of {human(float(m.labels['block_bytes']), 'block_bytes', 2)}"


def _difference(m: Measurement, usual: Measurement) -> str:
    if m.labels.get("cache") != usual.labels.get("cache"):
        return "reading ahead through the page cache" if m.labels.get("cache") == "through" else "O_DIRECT"
    if m.labels.get("block_bytes") != usual.labels.get("block_bytes"):
        return f"blocks of {human(float(m.labels['block_bytes']), 'block_bytes', 2)}"
    return f"{_readers(m)} readers"


def _decode(beside: Sequence[Measurement]) -> str:
    needed, have = _one(beside, "feed_preprocess_cores"), _one(beside, "feed_available_cores")
    if needed is None or have is None:
        return ""
    more = math.ceil(needed.value - have.value)
    if more >= 1:
        cores = "core" if more == 1 else "cores"
        all_cores = f"{needed.value:.2g} in all, {have.value:.0f} are here"
        return f"The decode is the limit: it needs {more} more {cores} ({all_cores})."
    return (
        f"The decode would need only {needed.value:.2g} of the {have.value:.0f} cores, but does not get them: "
        "more workers, or workers that do not share an interpreter's lock, would mend it."
    )


def _loader(beside: Sequence[Measurement]) -> str:
    gap = _one(beside, "feed_loader_gap_ratio")
    if gap is None:
        return "More workers, so that one reads while another decodes, would mend it."
    name, workers = gap.labels.get("loader", "the loader"), gap.labels.get("workers", "its")
    return (
        f"This is software, not hardware: our own reader on the same path leaves {human(gap.value, 'a_ratio', 2)} "
        f"less of the accelerator idle than {name} with {workers} workers."
    )


def _one(beside: Sequence[Measurement], metric: str) -> Measurement | None:
    return next((m for m in beside if m.metric == metric), None)
