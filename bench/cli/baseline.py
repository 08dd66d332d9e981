"""``bench baseline``: what the nightly gate compares with, and what an operator decides of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.gate import open_store
from bench.cli.output import emit, note
from bench.cli.stored import Json, NodeOption, Results, node_meant
from bench.store.errors import one_line
from bench.workflows import site as settings
from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.judge.baseline.series import Regression
    from bench.model import Run
    from bench.store.baselines import Decisions
    from bench.store.index import Index

baseline = typer.Typer(no_args_is_help=True, help="What the nightly gate compares with.", rich_markup_mode=None)
_PINNED_NIGHTS = 30
Profiles = Annotated[
    list[str] | None, typer.Option(envvar="BENCH_PROFILE", help="Whose series gate: by name or file; again for more.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the decision.")]


@baseline.command("show")
def show(
    node: NodeOption = None,
    profile: Profiles = None,
    results: Results = None,
    json: Json = False,
) -> int:
    """What this node normally measures, and the smallest drop that would be seen, as of its newest run.

    Examples:  bench baseline show    bench baseline show --node gpu07 --profile batch-inference --json
    """
    from bench.store.baselines import read

    store = open_store(results)
    with _index(store.root) as index:
        host = node_meant(index, node)
        run = store.find(str(store.root / "runs" / _newest(index, host)[2]))
        decided = _checked(lambda: read(store.root, host))
    entries = _entries(run, profile, results)
    found = _document(host, run, decided, entries)
    if json:
        from json import dumps

        emit(dumps(found, indent=2, allow_nan=False))
    else:
        emit("\n".join(map(one_line, _lines(found, entries))))
    return 0


@baseline.command("pin")
def pin(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Acceptance runs; default: the nights of today.")
    ] = None,
    node: NodeOption = None,
    profile: Profiles = None,
    reason: Reason = "",
    results: Results = None,
) -> int:
    """Keep these nights as the acceptance baseline: the guard against a decline too slow for the last thirty nights.

    Examples:  bench baseline pin --reason "accepted by M. Chen"    bench baseline pin 3f9a 41bc 77d0
    """
    from bench.store.baselines import Pin, read, write

    store = open_store(results)
    named = [_checked(lambda word=word: store.find(word)) for word in runs or []]
    with _index(store.root) as index:
        host = _one_host(named) if named else node_meant(index, node)
        chosen = [run.id for run in named] or _normal_nights(index, store.root, host, profile)
        decided = _checked(lambda: read(store.root, host))
        if not chosen:
            raise CliError(f"{host}: no good night is stored to pin; measure with: bench run")
        changed = decided.model_copy(update={"pin": Pin(runs=tuple(chosen), at=_now(), reason=reason)})
        _checked(lambda: write(store.root, changed))
    emit(one_line(f"{host}: pinned {len(chosen)} nights, {chosen[0]} to {chosen[-1]}"))
    return 0


@baseline.command("unpin")
def unpin(node: NodeOption = None, reason: Reason = "", results: Results = None) -> int:
    """Give up the acceptance baseline. The last thirty nights are compared with as before.

    Example:  bench baseline unpin --reason "the rack was rebuilt"
    """
    from bench.store.baselines import read, write

    store = open_store(results)
    with _index(store.root) as index:
        host = node_meant(index, node)
    decided = _checked(lambda: read(store.root, host))
    if decided.pin is None:
        raise CliError(f"{host}: nothing is pinned")
    _checked(lambda: write(store.root, decided.model_copy(update={"pin": None})))
    emit(one_line(f"{host}: unpinned {len(decided.pin.runs)} nights" + (f" ({reason})" if reason else "")))
    return 0


@baseline.command("reset")
def reset(
    reason: Annotated[str, typer.Option("--reason", help="Why; required, and kept.")],
    node: NodeOption = None,
    results: Results = None,
) -> int:
    """Learn anew: no run that is stored now is part of what is normal any more. A pin stays until it is unpinned.

    Example:  bench baseline reset --reason "disk replaced, ticket 4711"
    """
    from bench.store.baselines import Reset, read, write

    if not reason.strip():
        raise CliError("--reason must say why; it is what the next reader of a changed baseline looks for")
    store = open_store(results)
    with _index(store.root) as index:
        host = node_meant(index, node)
        through = _newest(index, host)[1]
    decided = _checked(lambda: read(store.root, host))
    resets = (*decided.resets, Reset(through=through, at=_now(), reason=reason))
    _checked(lambda: write(store.root, decided.model_copy(update={"resets": resets})))
    if decided.pin is not None:
        note(f"the pinned nights still guard; give them up with: bench baseline unpin --node {host}")
    emit(one_line(f"{host}: baseline reset, warming 0/7: {reason}"))
    return 0


def _index(root: Path) -> Index:
    from bench.store.index import Index

    return Index(root, warn=note)


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _checked(action: Any) -> Any:
    """What the store refuses becomes one line and status 2."""
    from bench.store.errors import StoreError, UnusableRun

    try:
        return action()
    except (UnusableRun, StoreError) as error:
        raise CliError(str(error)) from error


def _newest(index: Index, host: str) -> tuple[str, float, str]:
    found = index.newest(host)
    if found is None:
        raise CliError(f"{host}: no whole run is stored; measure with: bench run")
    return found


def _one_host(runs: list[Run]) -> str:
    hosts = sorted({run.node.hostname for run in runs})
    if len(hosts) > 1:
        raise CliError(one_line(f"these runs are of several nodes ({', '.join(hosts)}); pin each node's own"))
    return hosts[0]


def _normal_nights(index: Index, root: Path, host: str, profile: list[str] | None) -> list[str]:
    """The newest nights that were normal for every series that gates one of the profiles, at most thirty.

    Where nothing gates, every sound night that no verdict calls bad.
    """
    from bench.judge.baseline.prediction import Policy
    from bench.judge.baseline.series import gating, key_of, normal_runs
    from bench.store.history import history_of
    from bench.store.runs import load

    metrics = settings.declared_metrics()
    profiles = settings.load_profiles(profile or settings.config().get("profile", []), metrics)
    run: Run = _checked(lambda: load(root / "runs" / _newest(index, host)[2], follow=False))
    wanted = [(key_of(m), profile) for profile in profiles for _, m in gating(run, profile, metrics)]
    history = _checked(lambda: history_of(index, run, [key for key, _ in wanted], ()))
    good = [
        session.run
        for session in history.runs
        if session.sound and session.confirms is None and "NO-GO" not in [d for _, _, d in session.decisions]
    ]
    for key, profile_ in wanted:
        normal = normal_runs(key, history, profile_, metrics[key[0]], Policy())
        good = [run_id for run_id in good if run_id in normal]
    return good[-_PINNED_NIGHTS:]


def _entries(run: Run, profile: list[str] | None, results: Path | None) -> tuple[Regression, ...]:
    from bench.cli import regression
    from bench.workflows.judging import concluded

    metrics = settings.declared_metrics()
    profiles = settings.load_profiles(profile or settings.config().get("profile", []), metrics)
    judged = concluded(run, profiles, settings.metric_owners())
    return regression.against_baseline(judged, profiles, open_store(results), metrics, every=True).regressions


def _document(host: str, run: Run, decided: Decisions, entries: tuple[Regression, ...]) -> dict[str, Any]:
    from bench.judge.baseline.comparison import epoch_of
    from bench.judge.baseline.prediction import Policy

    return {
        "node": host,
        "run": run.id,
        "epoch": epoch_of(run.node, run.request),
        "nights_needed": Policy().fewest,
        "pin": decided.pin.model_dump(mode="json") if decided.pin else None,
        "resets": [reset.model_dump(mode="json") for reset in decided.resets],
        "series": [entry.public() for entry in entries],
    }


def _lines(found: dict[str, Any], entries: tuple[Regression, ...]) -> list[str]:
    from bench.units import human

    pin, resets = found["pin"], found["resets"]
    lines = [f"{found['node']}: as of run {found['run']}"]
    if pin:
        why = f" ({pin['reason']})" if pin["reason"] else ""
        lines.append(f"pinned: {len(pin['runs'])} nights, {pin['at']}{why}")
    if resets:
        lines.append(f"reset: {resets[-1]['at']}: {resets[-1]['reason']}")
    lines.append(f"{'expected':>14} {'visible drop':>13} {'nights':>7}  {'':<12} series")
    for entry in entries:
        labels = ",".join(f"{name}={value}" for name, value in sorted(entry.labels.items()))
        expected = "-" if entry.expected is None else human(entry.expected, entry.metric)
        least = entry.minimum_detectable_drop_ratio
        seen = "-" if least is None else f"{100 * least:.1f} %"
        nights = f"{entry.nights}/7" if entry.status.value == "warming" else str(entry.nights)
        state = entry.status.value + ("" if entry.gating else "*")
        lines.append(f"{expected:>14} {seen:>13} {nights:>7}  {state:<12} {entry.metric}{{{labels}}}")
    if not entries:
        lines.append("  the newest run measured nothing that can get worse")
    if not all(entry.gating for entry in entries):
        lines.append("* gates none of the profiles, or comes after the eight that gate one: shown, does not decide")
    return lines
