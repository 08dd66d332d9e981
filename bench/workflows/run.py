"""``bench run``, from top to bottom: load the profiles, plan, measure, save, judge, compare, save the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, note
from bench.measure import lock, quiet, tools
from bench.measure.node import this_node
from bench.measure.probe import Failed, Interrupted, Probe, Progress
from bench.measure.recording import Recording
from bench.measure.runner import RunPlan, execute, now
from bench.measure.tools import Signals
from bench.model import Effort, Node, Request, Run
from bench.show.terminal.progress import listener
from bench.store.errors import StoreError, UnusableRun
from bench.store.runs import Store
from bench.workflows.catalog import Catalog, load_catalog
from bench.workflows.judging import concluded, to_repeat
from bench.workflows.nightly import Compared, compared_with_nights, to_converge
from bench.workflows.request import RunOptions, request_of
from bench.workflows.site import check_installation, config, results_root

_MAX_SECONDS = {Effort.QUICK: 600.0, Effort.STANDARD: 1800.0, Effort.THOROUGH: 4 * 3600.0}


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is judged and stored, and by what. ``caught``: a signal that ended it."""

    compared: Compared
    catalog: Catalog
    caught: int | None


def measure_and_judge(asked: RunOptions, *, progress: bool) -> Finished:
    """Measure this node and judge it; both are stored. Raises UserError: 3 when another run measures here, else 2."""
    with Signals() as signals:  # until the verdict is stored: what was finished is not lost to a signal
        check_installation()
        catalog = load_catalog(asked.profile)
        job = _prepared(asked, catalog)
        with _alone(job):
            busy = _busy(job, asked.patience, signals)
            seconds = {probe.name: probe.time(job.request) for probe in job.probes if probe.measure is not None}
            with listener(seconds, shown=progress) as listen:
                run = execute(_plan(job, busy, signals, listen))
        job.store.save(run)
        judged = concluded(run, catalog)
        nights = asked.baseline and run.interrupted_by is None
        compared = compared_with_nights(judged, catalog, job.store, signals) if nights else Compared(judged)
        _save_verdict(job.store, compared.run)
    return Finished(compared, catalog, signals.caught)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What will be measured, where it is stored, and which probes need another round."""

    probes: Sequence[Probe]
    not_asked_for: Sequence[str]
    request: Request
    node: Node
    store: Store
    again: Callable[[Run], Sequence[str]]
    recording: Recording | None
    replay_of: str | None


def _prepared(asked: RunOptions, catalog: Catalog) -> _Prepared:
    """Everything that can be wrong before a minute is spent on measuring. Raises UserError."""
    site = config()
    store = Store(results_root(asked.results, site), warn=note)
    recording, original = _recorded(asked.replay, store) if asked.replay else (None, None)
    request = original.request if original else request_of(asked, site, catalog)
    node = original.node if original else this_node([Path(path) for path in request.storage])
    store.check(node.hostname)
    return _Prepared(
        probes=[probe for probe in catalog.probes if probe.name in request.probes],
        not_asked_for=[probe.name for probe in catalog.probes if probe.name not in request.probes],
        request=request,
        node=node,
        store=store,
        again=_again(catalog, asked.precision),
        recording=recording,
        replay_of=original.id if original else None,
    )


def _recorded(folder: Path, store: Store) -> tuple[Recording, Run]:
    """The recording of ``--replay DIR`` and the run that it belongs to (stored beside it). Raises UserError."""
    raw = folder if folder.suffix != ".json" else folder.with_suffix(".raw")
    try:
        return Recording(raw), store.find(str(raw.with_suffix(".json")))
    except Failed as error:
        raise UserError(error.reason) from error
    except UnusableRun as error:
        raise UserError(f"--replay {folder}: the run document beside it is needed: {error}") from error


def _again(catalog: Catalog, precision: float | None) -> Callable[[Run], Sequence[str]]:
    """Which probes to repeat: those whose interval straddles a limit, and with --precision those that are too wide."""
    straddling = to_repeat(catalog)
    if precision is None:
        return straddling
    wide = to_converge(catalog, precision)
    return lambda run: [*straddling(run), *wide(run)]


@contextmanager
def _alone(job: _Prepared) -> Iterator[None]:
    """Hold the node's lock; a replay measures nothing and needs none. Raises UserError."""
    try:
        with nullcontext() if job.recording else lock.one_run():
            yield
    except OSError as error:
        raise UserError(str(error)) from error


def _busy(job: _Prepared, patience_seconds: float | None, signals: Signals) -> tuple[str, ...]:
    """What is busy on this node after waiting for quiet as long as that (default: by effort).

    A signal ends the wait; the runner then sees it, and makes an interrupted run.
    """
    effort = job.request.effort
    if job.recording or job.request.options.get("quiet_check") == "off":
        return ()
    patience = quiet.PATIENCE_SECONDS[effort] if patience_seconds is None else patience_seconds

    def look() -> tuple[str, ...]:
        return quiet.look(quiet.WINDOW_SECONDS[effort], lambda seconds: tools.pause(seconds, signals))

    try:
        busy = quiet.wait_until_quiet(patience, look, time.monotonic, note)
    except Interrupted:
        return ()
    if busy:
        note(f"contended: {', '.join(busy)}; measured all the same, and nothing is decided; --wait-quiet 10m waits")
    return busy


def _plan(job: _Prepared, busy: tuple[str, ...], signals: Signals, listen: Callable[[Progress], None]) -> RunPlan:
    run_id, started_at = job.store.new_id(), now()
    return RunPlan(
        id=run_id,
        request=job.request,
        probes=job.probes,
        node=job.node,
        evidence=job.store.evidence_folder(job.node.hostname, started_at, run_id),
        not_asked_for=job.not_asked_for,
        busy=busy,
        replay=job.recording,
        replay_of=job.replay_of,
        listen=listen,
        again=job.again,
        max_seconds=_MAX_SECONDS[job.request.effort],
        signals=signals,
        started_at=started_at,
    )


def _save_verdict(store: Store, judged: Run) -> None:
    try:
        store.complete(judged)
    except (StoreError, UnusableRun) as error:
        raise UserError(f"measured and stored, but the verdict could not be added: {error}") from error
