"""The report: one HTML file for a team lead, an artifact store or a ticket. No script, no network, nothing beside it.

Jinja2 escapes everything; the only markup let through is our own: the pictures and the style sheet. The page forbids
itself all else by a Content-Security-Policy, so that even a mistake here could load and run nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.judge.baseline.comparison import Difference
from bench.model import Decision, Run
from bench.show.html import tables
from bench.show.html.comparison import comparison
from bench.show.html.plots.history import History, histories
from bench.show.text import clean
from bench.show.wording import proved, score, when

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
    environment = _environment()
    styles, _, _ = environment.loader.get_source(environment, "report.css")
    return str(
        environment.get_template("report.html.j2").render(
            styles=_trusted(styles),
            runs=[_run(one) for one in shown],
            several=comparison([one.run for one in shown], differences) if len(shown) > 1 else None,
            title=_title(shown),
            version=version,
        )
    )


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bench", "show/html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    return environment


def _trusted(markup: str | None) -> Any:
    """Our own markup. Nothing foreign may come through here but by matplotlib's XML writer, which escapes."""
    from markupsafe import Markup

    return None if markup is None else Markup(markup)


def _title(shown: Sequence[Shown]) -> str:
    hosts = ", ".join(dict.fromkeys(clean(one.run.node.hostname, 60) for one in shown))
    return f"{worst(shown[0].run).value} – {hosts}" if len(shown) == 1 else f"{len(shown)} runs – {hosts}"


def worst(run: Run) -> Decision:
    """The decision that stands for the run; without a verdict there is none to stand on."""
    found = {verdict.decision for verdict in run.verdicts}
    order = (Decision.NO_GO, Decision.INCONCLUSIVE, Decision.GO)
    return next((decision for decision in order if decision in found), Decision.INCONCLUSIVE)


def _run(one: Shown) -> dict[str, Any]:
    run = one.run
    return {
        "id": clean(run.id, 60),
        "host": clean(run.node.hostname, 100),
        "when": when(run.started_at),
        "decision": worst(run).value,
        "about": tables.about(run),
        "verdicts": [tables.verdict(v, one.descriptions.get(v.profile, ""), proved(run, v)) for v in run.verdicts],
        "attribution": run.attribution,
        "pictures": _pictures(one),
        "tables": tables.health(run),
        "holes": tables.holes(run),
        "doubts": tables.doubts(run),
        "figures": tables.figures(run),
        "lineage": one.lineage[:_MOST_LINEAGE],
        "cut": len(one.lineage) > _MOST_LINEAGE,
        "score": score,
    }


#: (heading, what it tells, how it is drawn). A picture whose figures were not measured is told as missing.
_Drawing = Callable[[Run], str | None]


def _drawings(one: Shown) -> Sequence[tuple[str, str, _Drawing]]:
    from bench.show.html.plots import budget, latency, serving, timeline, waterfall

    feed = "Each bar is a ceiling measured on the same data; red is what that part of the way costs. Pale: not valid."
    asked = "What the accelerator would consume if it were never kept waiting, and what the path delivers."
    nights = (
        "Band: where a night is expected. Dashed: a drop to there would be seen with 80 % power. Red: the limit. "
        "The large dot is this run."
    )
    hollow = "Hollow marks are for the record only: too few samples, or a contended host."
    return (
        ("Feed waterfall", feed, waterfall.waterfall),
        ("Demand against supply", asked, lambda run: waterfall.demand_and_supply(run.attribution)),
        ("The 200 ms budget", "What each part of an answer takes of it, at its 99th percentile.", budget.budget),
        (
            "Round trips",
            f"Quantiles by state of the network; the red line is the whole budget. {hollow}",
            budget.round_trips,
        ),
        ("Tokens a second", "By stage and batch; pale bars are for the record only.", serving.tokens),
        (
            "Goodput over offered load",
            "Share of the requests that kept the limits, with its interval.",
            serving.goodput,
        ),
        ("Time lines", "What the device delivered and what the accelerator consumed.", timeline.timelines),
        ("Storage latency", hollow, latency.latency),
        ("History of the gating metrics", nights, lambda _: histories(one.history)),
    )


def _pictures(one: Shown) -> list[dict[str, Any]]:
    drawn = ((heading, text, partial(draw, one.run)()) for heading, text, draw in _drawings(one))
    return [{"heading": heading, "text": text, "svg": _trusted(picture)} for heading, text, picture in drawn]
