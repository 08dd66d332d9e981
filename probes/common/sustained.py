"""What the search of an open loop found: the highest rate that kept the limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.model import Code, Measurement
from probes.common.metrics import Labels, figure
from probes.common.open_loop import Limits
from probes.common.pipe import Record, of


@dataclass(frozen=True, slots=True)
class SearchEnd(Record):
    """The highest rate that passed and the lowest that did not; ``share`` of the requests had to keep the limits."""

    share: float
    trials: int
    best: float | None = None
    failed: float | None = None


def sustained(
    found: Iterable[Record], limits: Limits, labels: Labels, invalid: str | None, unbroken: str
) -> Iterator[Measurement]:
    """The highest rate; its interval reaches to the lowest that broke the limits. ``unbroken``: that none did."""
    for end in of(found, SearchEnd):
        if end.best is not None:
            why = invalid or (f"{Code.SEARCH_UNFINISHED}: {unbroken}" if end.failed is None else None)
            named = {**limits.labels(labels), "share": f"{end.share:g}"}
            interval = (end.best, end.failed or end.best)
            yield figure("inference_sustained_requests_per_second", end.best, named, interval, end.trials, why)


def none_sustained(found: Iterable[Record]) -> Iterator[str]:
    for end in of(found, SearchEnd):
        if end.best is None:
            yield f"no rate down to {end.failed or 0.0:.3g} requests/s was shown to keep the limits"
