"""Is the node what it should be? Before anything is measured, its parts are held against what the site expects.

A missing card makes every later figure true and beside the point, so it ends the run at once, with NO-GO for every
profile (`bench.judge.gate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.measure import budget
from bench.measure.probe import Check, Context, Option, Probe, ProbeError, Skipped, Tools
from bench.model import Code, Measurement, Request
from probes.common.metrics import metrics

if TYPE_CHECKING:
    from probes.expect.plan import Expectation


def measure(ctx: Context) -> Sequence[Measurement]:
    """One figure for each part that is expected. Raises Skipped where nothing is."""
    from probes.expect.parse import compared, figures, taken

    wanted = ctx.option("expectation")
    if wanted is None:
        raise Skipped(Code.NOT_ASKED_FOR, "nothing is expected of this node (--expect FILE)")
    return figures(compared(wanted, taken(ctx.tools)))


def stops(found: Sequence[Measurement]) -> str | None:
    """What is not as expected, in one sentence; None where all is."""
    return "; ".join(m.labels["found"] for m in found if m.value) or None


def about(tools: Tools) -> Mapping[str, Any]:
    """The facts of the node that its driver knows: the names of its cards, and its own version. Raises ProbeError."""
    from probes.expect.parse import taken

    found = taken(tools)
    return {"gpus": [card.name for card in found.gpus or ()], "nvidia_driver": found.driver}


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Which parts are there, in the words of the file that `bench doctor --write-expect` writes."""
    from probes.expect.parse import taken

    try:
        found = taken(tools)
    except ProbeError as error:
        return [Check("parts", False, error.reason, error.remedy)]
    cards = "no GPU that answers" if found.gpus is None else f"{len(found.gpus)} GPU{'s' * (len(found.gpus) != 1)}"
    return [Check("parts", True, f"{cards}, {len(found.ports)} port{'s' * (len(found.ports) != 1)} up")]


def _expectation(text: str) -> Expectation:
    from probes.expect.plan import expectation

    return expectation(text)


PROBE = Probe(
    name="expect",
    help="The node's cards, driver, memory and ports against what the site expects (--expect FILE).",
    metrics=metrics(
        ("node_mismatches", "How many of a part are missing or are not what was expected.", "part found*", "lower")
    ),
    seconds=budget.NONE,
    measure=measure,
    stops=stops,
    doctor=doctor,
    order=0,
    guards_itself=True,
    about=about,
    options=(Option("expectation", "What the node should be, as JSON", _expectation, affects_comparability=False),),
)
