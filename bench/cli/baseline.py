"""``bench baseline``: what the nightly gate compares with, and what an operator decides of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from bench.cli.options import Json, NodeOption, Results, Words
from bench.cli.output import emit, emit_json, emit_lines
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.judge.baseline.series import Regression

baseline = Typer(no_args_is_help=True, help="What the nightly gate compares with.", rich_markup_mode=None)
Profiles = Annotated[Words, Option(envvar="BENCH_PROFILE", help="Whose series gate: by name or file; again for more.")]
Reason = Annotated[str, Option("--reason", help="Why; kept with the decision.")]


@baseline.command("show")
def show(node: NodeOption = None, profile: Profiles = None, results: Results = None, json: Json = False) -> None:
    """What this node normally measures, and the smallest drop that would be seen, as of its newest run.

    Examples:  bench baseline show    bench baseline show --node gpu07 --profile batch-inference --json
    """
    from bench.workflows import nightly

    found = nightly.normal(results, node, profile)
    if json:
        emit_json({**found, "series": [entry.public() for entry in found["series"]]})
    else:
        emit_lines(_lines(found))


@baseline.command("pin")
def pin(
    runs: Annotated[Words, Argument(metavar="[RUN]...", help="Acceptance runs; default: the nights of today.")] = None,
    node: NodeOption = None,
    profile: Profiles = None,
    reason: Reason = "",
    results: Results = None,
) -> None:
    """Keep these nights as the acceptance baseline: the guard against a decline too slow for the last thirty nights.

    Examples:  bench baseline pin --reason "accepted by M. Chen"    bench baseline pin 3f9a 41bc 77d0
    """
    from bench.workflows import nightly

    emit(nightly.pin(results, node, runs or [], profile, reason))


@baseline.command("unpin")
def unpin(node: NodeOption = None, reason: Reason = "", results: Results = None) -> None:
    """Give up the acceptance baseline. The last thirty nights are compared with as before.

    Example:  bench baseline unpin --reason "the rack was rebuilt"
    """
    from bench.workflows import nightly

    emit(nightly.unpin(results, node, reason))


@baseline.command("reset")
def reset(
    reason: Annotated[str, Option("--reason", help="Why; required, and kept.")],
    node: NodeOption = None,
    results: Results = None,
) -> None:
    """Learn anew: no run that is stored now is part of what is normal any more. A pin stays until it is unpinned.

    Example:  bench baseline reset --reason "disk replaced, ticket 4711"
    """
    from bench.workflows import nightly

    if not reason.strip():
        raise UserError("--reason must say why; it is what the next reader of a changed baseline looks for")
    emit(nightly.reset(results, node, reason))


def _lines(found: dict[str, Any]) -> list[str]:
    entries: tuple[Regression, ...] = found["series"]
    lines = [f"{found['node']}: as of run {found['run']}"]
    if pinned := found["pin"]:
        why = f" ({pinned['reason']})" if pinned["reason"] else ""
        lines.append(f"pinned: {len(pinned['runs'])} nights, {pinned['at']}{why}")
    if resets := found["resets"]:
        lines.append(f"reset: {resets[-1]['at']}: {resets[-1]['reason']}")
    lines.append(f"{'expected':>14} {'visible drop':>13} {'nights':>7}  {'':<12} series")
    lines += map(_series, entries)
    if not entries:
        lines.append("  the newest run measured nothing that can get worse")
    if not all(entry.gating for entry in entries):
        lines.append("* shown, does not decide: of no required gate, or too far from its limit to matter")
    return lines


def _series(entry: Regression) -> str:
    from bench.units import human, series_name

    expected = "-" if entry.expected is None else human(entry.expected, entry.metric)
    least = entry.minimum_detectable_drop_ratio
    seen = "-" if least is None else f"{100 * least:.1f} %"
    nights = f"{entry.nights}/7" if entry.status.value == "warming" else str(entry.nights)
    state = entry.status.value + ("" if entry.gating else "*")
    return f"{expected:>14} {seen:>13} {nights:>7}  {state:<12} {series_name(entry.metric, entry.labels)}"
