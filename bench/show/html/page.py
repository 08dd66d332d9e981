"""The report, of runs or of a fleet: one HTML file for a team lead, an artifact store or a ticket. No script, no
network, nothing beside it.

Jinja2 escapes everything; the only markup let through is our own: the pictures and the style sheet. The page forbids
itself all else by a Content-Security-Policy, so that even a mistake here could load and run nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.judge.baseline.comparison import Difference
from bench.judge.fleet.model import ANSWERED, Fleet, PairOutcome, State
from bench.judge.gate import decide
from bench.judge.statistics import median
from bench.model import Run
from bench.show import wording
from bench.show.html import tables
from bench.show.html.plots.timelines import MetricHistory
from bench.show.terminal.fleet_screen import collective_line, outlier_line, shift_line
from bench.show.text import clean
from bench.units import human

_MOST_LINEAGE = 60_000
_MOST_MATRIX = 128
_RATE = "network_throughput_bytes_per_second"


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as the page shows it. ``lineage`` is `bench explain`'s text; ``history`` of its gating metrics."""

    run: Run
    lineage: str = ""
    history: tuple[MetricHistory, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)


def render(shown: Sequence[Shown], version: str = "", differences: Sequence[Difference] | None = None) -> str:
    """The page of one run, or of several side by side.

    ``differences``: what `bench compare` found between two runs; without it the intervals alone tell what is noise.
    """
    from bench.show.html.plots import latency, rates, timelines

    hosts = ", ".join(dict.fromkeys(clean(one.run.node.hostname, 60) for one in shown))
    start = f"{len(shown)} runs" if len(shown) > 1 else decide(shown[0].run.verdicts).value
    return filled(
        "report.html.j2",
        title=f"{start} – {hosts}",
        version=version,
        shown=shown,
        several=tables.comparison([one.run for one in shown], differences),
        most_lineage=_MOST_LINEAGE,
        decide=decide,
        words=wording,
        tables=tables,
        latency=latency,
        rates=rates,
        timelines=timelines,
    )


def filled(template: str, **values: Any) -> str:
    """A template of this package with these values, all of them escaped but our own markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bench", "show/html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    return environment.get_template(template).render(values)


# --- a fleet


def render_fleet(fleet: Fleet) -> str:
    """The page of a fleet: verdicts, the matrix of pairs as a heat map, outliers, who is missing."""
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
