"""The report: one HTML file for a team lead, an artifact store or a ticket. No script, no network, nothing beside it.

Jinja2 escapes everything; the only markup let through is our own: the pictures and the style sheet. The page forbids
itself all else by a Content-Security-Policy, so that even a mistake here could load and run nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.judge.baseline.comparison import Difference
from bench.judge.gate import decide
from bench.model import Run
from bench.show import wording
from bench.show.html import tables
from bench.show.html.plots.timelines import History
from bench.show.text import clean

_MOST_LINEAGE = 60_000


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as the page shows it. ``lineage`` is `bench explain`'s text; ``history`` of its gating metrics."""

    run: Run
    lineage: str = ""
    history: tuple[History, ...] = ()
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
