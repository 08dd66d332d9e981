"""The fleet as one HTML page that stands alone: verdicts, the matrix of pairs as a heat map, outliers, who is missing.

No script, no outside resource, so that it opens from a mail or an artifact store. Jinja escapes all foreign text.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.judge.fleet.model import ANSWERED, Fleet, PairOutcome, State
from bench.judge.statistics import median
from bench.show.html.page import filled
from bench.show.terminal.fleet_screen import collective_line, outlier_line, shift_line
from bench.show.text import clean
from bench.units import human

_MOST_MATRIX = 128
_RATE = "network_throughput_bytes_per_second"


def render(fleet: Fleet) -> str:
    """The page as text."""
    return filled(
        "fleet.html.j2",
        fleet=fleet,
        answered=sum(node.state in ANSWERED for node in fleet.nodes),
        outliers=[(outlier_line(outlier), outlier.level) for outlier in fleet.outliers],
        collective=collective_line(fleet.collective) if fleet.collective else None,
        shifts=[shift_line(shift) for shift in fleet.shifts],
        matrix=_matrix(fleet),
        rate=partial(human, metric=_RATE),
        missing=[node for node in fleet.nodes if node.state not in ANSWERED],
    )


def _matrix(fleet: Fleet) -> dict[str, Any] | None:
    """Rows send, columns receive. Each cell: text, colour, title. None without pairs or when nobody could read it."""
    hosts = [node.host for node in fleet.nodes if any(node.host in (p.client, p.server) for p in fleet.pairs)]
    if not hosts or len(hosts) > _MOST_MATRIX:
        return None
    sent = {(p.client, p.server): p.send_bytes_per_second for p in fleet.pairs}
    sent |= {(p.server, p.client): p.receive_bytes_per_second for p in fleet.pairs}
    rates = {ends: rate for ends, rate in sent.items() if rate is not None}
    usual = median(list(rates.values())) if rates else None
    missed = [p for p in fleet.pairs if p.state is not State.PASS]
    holes = {ends: p for p in missed for ends in ((p.client, p.server), (p.server, p.client))}
    rows = [(a, [_cell(a, b, rates.get((a, b)), usual, holes.get((a, b))) for b in hosts]) for a in hosts]
    return {"hosts": hosts, "rows": rows, "usual": usual}


def _cell(a: str, b: str, rate: float | None, usual: float | None, hole: PairOutcome | None) -> tuple[str, str, str]:
    """(text, CSS colour, tooltip). The text carries the meaning; the colour repeats it."""
    if a == b:
        return "", "#fff", ""
    if rate is None or not usual:
        why = f"{hole.state.value}: {clean(hole.reason or '', 200)}" if hole else "not measured"
        return "–", "#ddd", f"{clean(a)} to {clean(b)}: {why}"
    share = min(rate / usual, 1.0)
    colour = f"hsl({120 * max(0.0, (share - 0.5) / 0.5):.0f} 60% 75%)"  # red at half of the usual rate and below
    return human(rate, _RATE), colour, f"{clean(a)} to {clean(b)}: {100 * rate / usual:.0f} % of the median"
