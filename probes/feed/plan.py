"""Which arms run for how long at each effort. Seconds; storage twice, interleaved with fetch, because devices drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.model import Effort

Rows = list[dict[str, Any]]
_Arm = tuple[str, int, float, float, float]

#: (arm, turn, warm, shortest, longest). Warm-up covers the fill of the read-ahead and short burst credits; an arm
#: that is not flat by then goes on to ``longest``.
_ARMS: Mapping[Effort, tuple[_Arm, ...]] = {
    Effort.QUICK: (
        ("transfer", 1, 0.3, 0.7, 0.7),
        ("preprocess", 1, 0.3, 1.2, 1.2),
        ("fetch", 1, 1.0, 1.5, 2.5),
        ("storage", 1, 1.0, 3.0, 4.5),
        ("fetch", 2, 1.0, 1.5, 2.5),
        ("storage", 2, 1.0, 3.0, 4.5),
    ),
    Effort.STANDARD: (
        ("transfer", 1, 0.5, 1.5, 1.5),
        ("preprocess", 1, 0.5, 3.0, 3.0),
        ("fetch", 1, 1.5, 5.0, 10.0),
        ("storage", 1, 2.0, 10.0, 20.0),
        ("fetch", 2, 1.5, 5.0, 10.0),
        ("storage", 2, 2.0, 10.0, 20.0),
    ),
    Effort.THOROUGH: (
        ("transfer", 1, 1.0, 5.0, 5.0),
        ("preprocess", 1, 1.0, 10.0, 10.0),
        ("fetch", 1, 2.0, 20.0, 60.0),
        ("storage", 1, 2.0, 30.0, 90.0),
        ("fetch", 2, 2.0, 20.0, 60.0),
        ("storage", 2, 2.0, 30.0, 90.0),
    ),
}
_RESIDENT_SECONDS = {Effort.QUICK: 1.0, Effort.STANDARD: 3.0, Effort.THOROUGH: 10.0}
_YARDSTICK_SECONDS = {Effort.QUICK: 2.0, Effort.STANDARD: 5.0, Effort.THOROUGH: 15.0}
_MEND_SECONDS = {Effort.QUICK: 0.6, Effort.STANDARD: 1.5, Effort.THOROUGH: 5.0}
#: Other ways to read, the most promising first; the search ends with the effort's time. (workers, block, buffered)
_MEND: tuple[tuple[int | None, int | None, bool], ...] = (
    (64, None, False),
    (None, 4 << 20, False),
    (None, 256 << 10, False),
    (None, None, True),
)


def schedule(effort: Effort, real: bool, readers: int, loader: bool, sweep: bool) -> Rows:
    """The rows of the child's schedule (`probes.feed.load.spec.Row`).

    A real accelerator's own rate is measured before and after; an emulated one's is exact. With a loader of other
    people's our own reader is measured beside it. ``readers``: how many the workload's publishers use.
    """
    rows = [_row(*arm) for arm in _ARMS[effort]]
    if loader:
        rows = [_for_processes(row) for row in rows]
        seconds = _YARDSTICK_SECONDS[effort]
        rows.append(_row("yardstick", 1, 1.0, seconds, seconds * 2))
    if real:
        seconds = _RESIDENT_SECONDS[effort]
        rows = [_row("resident", 1, 0.5, seconds, seconds), *rows, _row("resident", 2, 0.3, seconds, seconds)]
    return rows + (mend_rows(effort, readers) if sweep else [])


def _for_processes(row: dict[str, Any]) -> dict[str, Any]:
    """Worker processes start slowly and each first fetches whole batches: twice as much is left out and looked at."""
    if row["arm"] != "storage":
        return row
    return {**row, "warm": row["warm"] * 2, "shortest": row["shortest"] * 1.5, "longest": row["longest"] * 2}


def mend_rows(effort: Effort, readers: int) -> Rows:
    seconds = _MEND_SECONDS[effort]
    ways = ((readers, None, False), *_MEND)
    return [
        {**_row("mend", turn, 0.3, seconds, seconds), "mend": True, "workers": w, "block_bytes": b, "buffered": c}
        for turn, (w, b, c) in enumerate(ways, 1)
    ]


def _row(arm: str, turn: int, warm: float, shortest: float, longest: float) -> dict[str, Any]:
    return {"arm": arm, "turn": turn, "warm": warm, "shortest": shortest, "longest": longest}
