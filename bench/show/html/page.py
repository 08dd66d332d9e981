"""The report, of runs or of a fleet: one HTML file for a team lead, an artifact store or a ticket. No script, no
network, nothing beside it.

Jinja2 escapes everything; the only markup let through is our own: the pictures and the style sheet. The page forbids
itself all else by a Content-Security-Policy, so that even a mistake here could load and run nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.judge.baseline.comparison import Difference
from bench.judge.fleet.model import ANSWERED, Fleet, PairOutcome, State
from bench.judge.gate import ENDPOINT, decide
from bench.judge.statistics import median
from bench.measure.probe import Probe
from bench.model import Run
from bench.show import wording
from bench.show.html import tables
from bench.show.html.plots import Picture, latency, rates, timelines
from bench.show.html.plots.timelines import MetricHistory
from bench.show.matrix import Matrix
from bench.show.terminal.fleet_screen import collective_line, outlier_line, shared_line, shift_line
from bench.show.text import clean, signs

_MOST_LINEAGE = 60_000
_MOST_MATRIX = 128
#: Of more hosts a cell has no room for its figure.
_MOST_FIGURES = 10


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as the page shows it. ``lineage`` is `bench explain`'s text; ``history`` of its gating metrics.

    ``probes`` know what to measure next; ``descriptions`` of the profiles by name.
    """

    run: Run
    lineage: str = ""
    history: tuple[MetricHistory, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()


#: Under which heading what is drawn; None: it was not measured.
PICTURES: Mapping[str, Callable[[Shown], Picture | None]] = {
    "Feed waterfall": lambda one: rates.waterfall(one.run),
    "Demand against supply": lambda one: rates.demand_and_supply(one.run),
    "While storage fed the accelerator": lambda one: timelines.fed(one.run),
    "Time line of the run": lambda one: timelines.one_clock(one.run),
    "The 200 ms budget": lambda one: latency.budget(one.run),
    "Round trips": lambda one: latency.round_trips(one.run),
    "Round trips over time": lambda one: timelines.round_trip_lines(one.run),
    "Tokens a second": lambda one: rates.tokens(one.run),
    "Goodput over offered load": lambda one: rates.goodput(one.run),
    "Storage latency": lambda one: latency.storage(one.run),
    "History of the gating metrics": lambda one: timelines.histories(one.history),
}
#: The same of a run in which a real server was named.
OF_A_SERVER: Mapping[str, Callable[[Shown], Picture | None]] = {
    "A real server, by load": lambda one: latency.loads(one.run),
}


def _pictures(one: Shown) -> dict[str, Picture | None]:
    asked = {**OF_A_SERVER, **PICTURES} if ENDPOINT in one.run.request.options else PICTURES
    return {heading: draw(one) for heading, draw in asked.items()}


def render(shown: Sequence[Shown], version: str = "", differences: Sequence[Difference] | None = None) -> str:
    """The page of one run, or of several side by side.

    ``differences``: what `bench compare` found between two runs; without it the intervals alone tell what is noise.
    """
    hosts = ", ".join(dict.fromkeys(clean(one.run.node.hostname, 60) for one in shown))
    start = f"{len(shown)} runs" if len(shown) > 1 else decide(shown[0].run.verdicts).value
    return filled(
        "report.html.j2",
        title=f"{start} – {hosts}",
        version=version,
        shown=shown,
        several=tables.comparison([one.run for one in shown], differences),
        matrix=lambda one: Matrix(one.run, one.probes),
        pictures=_pictures,
        most_lineage=_MOST_LINEAGE,
        decide=decide,
        words=wording,
        tables=tables,
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
    environment.filters.update(clean=clean, signs=signs)
    return environment.get_template(template).render(values)


def render_fleet(fleet: Fleet) -> str:
    """The page of a fleet: verdicts, the matrix of pairs as a heat map, outliers, who is missing."""
    return filled(
        "fleet.html.j2",
        title=f"{fleet.decision.value} – fleet {clean(fleet.id)}",
        version=clean(fleet.bench_version or ""),
        fleet=fleet,
        answered=sum(node.state in ANSWERED for node in fleet.nodes),
        outliers=[(outlier_line(outlier), outlier.level) for outlier in fleet.outliers],
        collective=collective_line(fleet.collective) if fleet.collective else None,
        shifts=[shift_line(shift) for shift in fleet.shifts],
        shared=[shared_line(one) for one in fleet.shared],
        matrix=_pairs(fleet),
        rate=wording.pair_rate,
        missing=[node for node in fleet.nodes if node.state not in ANSWERED],
    )


def _pairs(fleet: Fleet) -> dict[str, Any] | None:
    """Rows send, columns receive. Each cell: text, level, title. None without pairs or when nobody could read it."""
    hosts = [node.host for node in fleet.nodes if any(node.host in (p.client, p.server) for p in fleet.pairs)]
    if not hosts or len(hosts) > _MOST_MATRIX:
        return None
    sent = {(p.client, p.server): p.send_bytes_per_second for p in fleet.pairs}
    sent |= {(p.server, p.client): p.receive_bytes_per_second for p in fleet.pairs}
    rates = {ends: rate for ends, rate in sent.items() if rate is not None}
    usual = median(list(rates.values())) if rates else None
    missed = [p for p in fleet.pairs if p.state is not State.PASS]
    holes = {ends: p for p in missed for ends in ((p.client, p.server), (p.server, p.client))}
    small = len(hosts) > _MOST_FIGURES
    names = dict(zip(hosts, _short(hosts), strict=True))
    rows = [(names[a], [_cell(a, b, rates.get((a, b)), usual, holes.get((a, b)), small) for b in hosts]) for a in hosts]
    return {
        "hosts": list(names.values()),
        "rows": rows,
        "usual": usual,
        "small": small,
        "room": (0.5 if small else 4.0) * len(hosts),
        "said": _slowest(rates, usual),
    }


def _short(hosts: Sequence[str]) -> list[str]:
    """The hosts' names without the domain, where all are of one."""
    domains = {host.partition(".")[1:] for host in hosts}
    return [clean(host.partition(".")[0] if len(domains) == 1 else host, 60) for host in hosts]


def _cell(
    a: str, b: str, rate: float | None, usual: float | None, hole: PairOutcome | None, small: bool
) -> tuple[str, str, str]:
    """(text, level 0 to 10 or none, tooltip). Where there is room the text tells it; the colour repeats it."""
    ends = f"{clean(a)} to {clean(b)}"
    if a == b:
        return "", "-", ""
    if rate is None or not usual:
        why = f"{hole.state.value}: {clean(hole.reason or '', 200)}" if hole else "not measured"
        return "" if small else "–", "", f"{ends}: {why}"
    level = min(10, max(0, int(20 * (rate / usual - 0.5) + 1e-9)))
    share = f"{100 * rate / usual:.0f} % of the median"
    return "" if small else wording.pair_rate(rate), str(level), f"{ends}: {wording.pair_rate(rate)}, {share}"


def _slowest(rates: Mapping[tuple[str, str], float], usual: float | None) -> str:
    """The pair with the lowest rate, in words: nobody has to find it by its colour."""
    if not rates or not usual:
        return "None was measured."
    (a, b), rate = min(rates.items(), key=lambda item: item[1])
    share = f"{100 * rate / usual:.0f} % of the median"
    return f"The slowest is {clean(a)} to {clean(b)}: {wording.pair_rate(rate)}, {share}."
