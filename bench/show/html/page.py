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
from bench.show.html import tables
from bench.show.html.plots.timelines import History
from bench.show.text import clean
from bench.show.wording import doubts, holes, proved, when

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
    return filled(
        "report.html.j2",
        runs=[_run(one) for one in shown],
        several=tables.comparison([one.run for one in shown], differences) if len(shown) > 1 else None,
        title=_title(shown),
        version=version,
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


def _trusted(markup: str | None) -> Any:
    """Our own pictures. Nothing foreign may come through here but by matplotlib's XML writer, which escapes."""
    from markupsafe import Markup

    return None if markup is None else Markup(markup)


def _title(shown: Sequence[Shown]) -> str:
    hosts = ", ".join(dict.fromkeys(clean(one.run.node.hostname, 60) for one in shown))
    return f"{decide(shown[0].run.verdicts).value} – {hosts}" if len(shown) == 1 else f"{len(shown)} runs – {hosts}"


def _run(one: Shown) -> dict[str, Any]:
    run = one.run
    return {
        "id": clean(run.id, 60),
        "host": clean(run.node.hostname, 100),
        "when": when(run.started_at),
        "decision": decide(run.verdicts).value,
        "about": tables.about(run),
        "verdicts": [tables.verdict(v, one.descriptions.get(v.profile, ""), proved(run, v)) for v in run.verdicts],
        "attribution": run.attribution,
        "pictures": _pictures(one),
        "tables": tables.health(run),
        "holes": [[", ".join(hole.names), *hole[1:]] for hole in holes(run)],
        "doubts": doubts(run, each_reason=True),
        "figures": tables.figures(run),
        "lineage": one.lineage[:_MOST_LINEAGE],
        "cut": len(one.lineage) > _MOST_LINEAGE,
    }


def _pictures(one: Shown) -> list[dict[str, Any]]:
    """What was not measured has no picture, and its heading is told as missing."""
    from bench.show.html.plots import latency, rates, timelines

    run = one.run
    hollow = "Hollow marks are for the record only: too few samples, or a contended host."
    drawn = (
        (
            "Feed waterfall",
            "Each bar is a ceiling measured on the same data; red is what that part of the way costs. Pale: not valid.",
            rates.waterfall(run),
        ),
        (
            "Demand against supply",
            "What the accelerator would consume if it were never kept waiting, and what the path delivers.",
            rates.demand_and_supply(run.attribution),
        ),
        (
            "The 200 ms budget",
            "What each part of an answer takes of it, at its 99th percentile.",
            latency.budget(run),
        ),
        (
            "Round trips",
            f"Quantiles by state of the network; the red line is the whole budget. {hollow}",
            latency.round_trips(run),
        ),
        ("Tokens a second", "By stage and batch; pale bars are for the record only.", rates.tokens(run)),
        (
            "Goodput over offered load",
            "Share of the requests that kept the limits, with its interval.",
            rates.goodput(run),
        ),
        ("Time lines", "What the device delivered and what the accelerator consumed.", timelines.timelines(run)),
        ("Storage latency", hollow, latency.storage(run)),
        (
            "History of the gating metrics",
            "Band: where a night is expected. Dashed: a drop to there would be seen with 80 % power. Red: the limit. "
            "The large dot is this run.",
            timelines.histories(one.history),
        ),
    )
    return [{"heading": heading, "text": text, "svg": _trusted(picture)} for heading, text, picture in drawn]
