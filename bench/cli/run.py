"""``bench run``: load the profiles, run the probes, save the run, attribute, judge, save the verdict, show, exit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.output import emit, emit_run, note
from bench.workflows import nightly
from bench.workflows import request as asking
from bench.workflows import site as settings
from bench.workflows.errors import CliError
from bench.workflows.request import Asked, request_of

if TYPE_CHECKING:
    from bench.cli.regression import Compared
    from bench.judge.profile import Profile
    from bench.measure.probe import Probe
    from bench.measure.recording import Recording
    from bench.measure.tools import Signals
    from bench.model import Node, Request, Run
    from bench.store.runs import Store

_MAX_SECONDS = {"quick": 600.0, "standard": 1800.0, "thorough": 4 * 3600.0}

Words = list[str] | None
Paths = list[Path] | None


def _schema(wanted: bool) -> None:
    if wanted:
        from bench.store.documents import schema_text

        emit(schema_text())
        raise typer.Exit


def run(
    profile: Annotated[
        Words, typer.Option(envvar="BENCH_PROFILE", help="Profile by name or file; again for more.")
    ] = None,
    probe: Annotated[Words, typer.Option(help="Only this probe; again for more.")] = None,
    storage: Annotated[
        Paths, typer.Option(envvar="BENCH_STORAGE", help="Directory to measure; again for more.")
    ] = None,
    peer: Annotated[
        Words, typer.Option(envvar="BENCH_PEER", help="HOST[:PORT] of a `bench peer`; again for more.")
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(envvar="BENCH_ACCELERATOR", help="auto, cuda, cpu or emulated[:NAME].")
    ] = None,
    effort: Annotated[str | None, typer.Option(envvar="BENCH_EFFORT", help="quick, standard or thorough.")] = None,
    results: Annotated[Path | None, typer.Option(envvar="BENCH_RESULTS", help="Where runs are stored.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The run document on standard output, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; one line a profile.")] = False,
    all_gates: Annotated[bool, typer.Option("--all-gates", help="A line for every gate, passes too.")] = False,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Status 0 whatever the verdict.")] = False,
    replay: Annotated[
        Path | None, typer.Option(help="Judge recorded tool output anew: the .raw folder of a stored run.")
    ] = None,
    loader: Annotated[
        str | None, typer.Option(help="Feed as people load: torch, webdataset, safetensors, parquet.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Feed pattern: batch, shards, model-load, kv-cache, checkpoint.")
    ] = None,
    workload: Annotated[str | None, typer.Option(help="Published workload by name: unet3d, resnet50, ...")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Shared key of the peer's echo, in a file.")] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Compare with this node's nights; measure what is worse once more.")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="Repeat within the effort's time until medians are known to 3%, say.")
    ] = None,
    wait_quiet: Annotated[
        str | None, typer.Option(help="Wait as long as 10m, say, for a node that others keep busy.")
    ] = None,
    quiet_check: Annotated[
        bool,
        typer.Option(
            "--quiet-check/--no-quiet-check",
            envvar="BENCH_QUIET_CHECK",
            help="Look first whether others are busy here.",
        ),
    ] = True,
    option: Annotated[
        Words, typer.Option(metavar="NAME=VALUE", help="An option that one probe reads (docs); again for more.")
    ] = None,
    confirms: Annotated[str | None, typer.Option(hidden=True)] = None,
    print_schema: Annotated[
        bool, typer.Option("--print-schema", callback=_schema, is_eager=True, help="Print the JSON Schema of a run.")
    ] = False,
) -> int:
    """Measure this node, store the run, judge it, print one screen.

    Examples:  bench run --storage /data --peer 10.0.0.2    bench run --effort quick --json > run.json
    """
    from bench.measure.tools import Signals

    asked = Asked(profile or [], probe or [], storage or [], peer or [], accelerator, effort, results, replay)
    options = {"loader": loader, "pattern": pattern, "workload": workload, "key_file": key_file and str(key_file)}
    options |= asking.probe_options(option or [])
    options |= {"confirms": confirms, "quiet_check": None if quiet_check else "off"}
    with Signals() as signals:  # until the verdict is stored: what was finished is not lost to a signal
        job = _prepare(asked, {name: value for name, value in options.items() if value is not None})
        job.patience, job.precision, job.baseline = nightly.patience(wait_quiet), nightly.precision(precision), baseline
        done = _measure(job, signals, progress=not quiet)
        compared = _conclude(job, done, signals)
    judged = compared.run
    if json:
        emit(_as_json(judged))
    else:
        emit_run(judged, job.profiles, quiet=quiet, all_gates=all_gates)
        if more := _more(job, compared):
            emit("\n".join(more))
    return 128 + signals.caught if signals.caught else _status(judged, exit_zero)


@dataclass(slots=True)
class _Job:
    profiles: list[Profile]
    probes: list[Probe]
    skipped: list[Probe]
    request: Request
    node: Node
    store: Store
    owners: dict[str, str]
    recording: Recording | None
    replay_of: str | None
    patience: float | None = None
    precision: float | None = None
    baseline: bool = False


def _prepare(asked: Asked, options: dict[str, Any]) -> _Job:
    """Everything that can be wrong before a minute is spent on measuring. Raises CliError."""
    from bench.measure.node import this_node
    from bench.store.errors import StoreError
    from bench.store.runs import Store
    from bench.workflows import installation as ownership
    from probes import discover

    ownership.check()
    site = settings.config()
    found = discover()
    profiles = settings.load_profiles(asked.profile or site.get("profile", []), settings.declared_metrics())
    store = Store(settings.results_root(asked.results, site), warn=note)
    recording, original = _recorded(asked.replay, store)
    request = original.request if original else request_of(asked, site, found, options)
    node = original.node if original else this_node([Path(path) for path in request.storage])
    try:
        store.check(node.hostname)
    except StoreError as error:
        raise CliError(str(error)) from error
    chosen = [p for p in found if p.name in request.probes]
    skipped = [p for p in found if p.name not in request.probes]
    owners = {metric.name: p.name for p in found for metric in p.metrics}
    return _Job(profiles, chosen, skipped, request, node, store, owners, recording, original.id if original else None)


def _recorded(folder: Path | None, store: Store) -> tuple[Recording | None, Run | None]:
    """The recording of ``--replay DIR`` and the run that it belongs to (stored beside it)."""
    if folder is None:
        return None, None
    from bench.measure.probe import Failed
    from bench.measure.recording import Recording
    from bench.store.errors import UnusableRun

    raw = folder if folder.suffix != ".json" else folder.with_suffix(".raw")
    try:
        return Recording(raw), store.find(str(raw.with_suffix(".json")))
    except Failed as error:
        raise CliError(error.reason) from error
    except UnusableRun as error:
        raise CliError(f"--replay {folder}: the run document beside it is needed: {error}") from error


def _measure(job: _Job, signals: Signals, progress: bool) -> Run:
    """Measure and store. Raises CliError: 3 when another run measures here, 2 when the run cannot be stored."""
    from bench.measure import lock, runner
    from bench.measure.quiet import marked
    from bench.show.terminal.progress import listener
    from bench.store.errors import StoreError
    from bench.workflows.judging import composed

    plan = runner.Plan(
        id=job.store.new_id(),
        request=job.request,
        probes=job.probes,
        node=job.node,
        evidence=Path(),
        replay=job.recording,
        replay_of=job.replay_of,
        again=_again(job),
        signals=signals,
        max_seconds=_MAX_SECONDS[job.request.effort],
    )
    alone: AbstractContextManager[None] = nullcontext() if job.recording else lock.one_run()
    try:
        with alone:
            looked = job.recording is None and job.request.options.get("quiet_check") != "off"
            busy = nightly.busy_now(job.request.effort, signals, job.patience) if looked else ()
            plan.started, plan.started_at = time.monotonic(), runner.now()
            with listener(job.probes, job.request, shown=progress) as listen:
                plan.evidence = job.store.evidence_folder(job.node.hostname, plan.started_at, plan.id)
                plan.listen = listen
                measuring = {p.name for p in job.probes if p.measure and not p.guards_itself}
                done = composed(marked(_with_skipped(runner.execute(plan), job.skipped), busy, measuring))
        job.store.save(done)
    except lock.NodeBusy as error:
        raise CliError(str(error), status=3) from error
    except (StoreError, OSError) as error:
        raise CliError(str(error)) from error
    return done


def _with_skipped(done: Run, skipped: Sequence[Probe]) -> Run:
    """The probes that were not asked for are in the document, with that as their reason."""
    from bench.model import Code, Outcome, ProbeResult

    reason = f"{Code.NOT_ASKED_FOR}: --probe did not name it"
    extra = [ProbeResult(probe=p.name, outcome=Outcome.SKIPPED, reason=reason) for p in skipped]
    return done.model_copy(update={"results": (*done.results, *extra)})


def _again(job: _Job) -> Callable[[Run], Sequence[str]]:
    """Which probes to repeat: those whose interval straddles a limit, and with --precision those that are too wide."""
    from bench.workflows.judging import to_repeat

    straddling = to_repeat(job.profiles, job.owners)
    if job.precision is None:
        return straddling
    wide = nightly.to_converge(job.profiles, job.owners, job.precision)
    return lambda run: [*straddling(run), *wide(run)]


def _conclude(job: _Job, done: Run, signals: Signals) -> Compared:
    """Judge, compare with the node's nights where that is asked for, and store what was concluded."""
    from bench.cli.regression import Compared
    from bench.store.errors import StoreError, UnusableRun
    from bench.workflows.judging import concluded

    compared = Compared(concluded(done, job.profiles, job.owners))
    if job.baseline and done.interrupted_by is None:
        metrics = settings.declared_metrics()
        compared = nightly.compared(compared.run, job.profiles, job.store, job.owners, signals, metrics)
    try:
        job.store.complete(compared.run)
    except (StoreError, UnusableRun) as error:
        raise CliError(f"measured and stored, but the verdict could not be added: {error}") from error
    return compared


def _more(job: _Job, compared: Compared) -> list[str]:
    """What stands below the verdicts for --precision and --baseline."""
    from bench.cli.regression import lines

    found = nightly.convergence(compared.run, job.profiles, job.precision) if job.precision is not None else []
    return found + (lines(compared) if job.baseline else [])


def _as_json(run: Run) -> str:
    from json import dumps

    from bench.store.runs import document

    return dumps(document(run), indent=2, allow_nan=False)


def _status(run: Run, exit_zero: bool) -> int:
    from bench.judge.gate import decide, exit_status

    return 0 if exit_zero else exit_status(decide(run.verdicts))
