"""``bench run``, from top to bottom: load the profiles, plan, measure, save, judge, compare, save the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from bench.errors import UserError, note
from bench.judge.gate import ENDPOINT
from bench.judge.statement import Told
from bench.measure import lock, quiet, tools
from bench.measure.budget import whole_seconds
from bench.measure.node import sources, this_node
from bench.measure.probe import Failed, Interrupted, ProbeError
from bench.measure.recording import LiveTools, Recording
from bench.measure.runner import RunPlan, execute, now
from bench.measure.tools import Signals
from bench.model import Effort, Node, ProbeResult, Request, Run
from bench.show.matrix import Matrix
from bench.show.terminal.progress import listener
from bench.store.errors import StoreError, UnusableRun
from bench.store.runs import Store
from bench.workflows import evidence
from bench.workflows.catalog import Catalog, load_catalog
from bench.workflows.judging import concluded, to_repeat, undecidable
from bench.workflows.nightly import Compared, compared_with_nights, to_converge
from bench.workflows.request import RunOptions, request_of, why_not
from bench.workflows.site import check_installation, config, results_root

#: Of the whole, for starting, judging and storing.
_AROUND_SECONDS = 6.0
_MAX_SECONDS = {Effort.QUICK: 600.0, Effort.STANDARD: 1800.0, Effort.THOROUGH: 4 * 3600.0}


def measure_and_judge(asked: RunOptions, *, progress: bool) -> tuple[Compared, Catalog, int | None]:
    """Measure this node and judge it; both are stored. With the catalog it is judged by, and a signal that ended it.

    Raises UserError: 3 when another run measures here, else 2.
    """
    with Signals() as signals:  # until the verdict is stored: what was finished is not lost to a signal
        check_installation()
        site = config()
        key = asked.sign or (Path(site["sign"]) if "sign" in site and asked.replay is None else None)
        if key:
            evidence.check_key(key, signals)
        told = evidence.told_now(asked.nonce, None)
        catalog = load_catalog(asked.profile)
        store = Store(results_root(asked.results, site), warn=note)
        run = _measured(asked, site, catalog, store, signals, progress)
        catalog = catalog.of(run.request)
        store.save(run)
        judged = concluded(run, catalog, store)
        nights = asked.baseline and run.interrupted_by is None
        compared = compared_with_nights(judged, catalog, store, signals) if nights else Compared(judged)
        try:
            store.complete(compared.run)
        except (StoreError, UnusableRun) as error:
            raise UserError(f"measured and stored, but the verdict could not be added: {error}") from error
        if key and signals.caught is None:
            _signed(compared.run, key, catalog, store, told, signals)
    return compared, catalog, signals.caught


def _signed(run: Run, key: Path, catalog: Catalog, store: Store, told: Told, signals: Signals) -> None:
    try:
        note(f"signed: {evidence.sign_run(store.path_for(run), key, catalog, store, told, signals)}")
    except UserError as error:
        mend = f"sign it with: bench sign {run.id} --key KEY"
        raise UserError(f"measured and stored, but not signed: {error}; {mend}", status=error.status) from error


def _measured(
    asked: RunOptions, site: Mapping[str, Any], catalog: Catalog, store: Store, signals: Signals, progress: bool
) -> Run:
    """Find all that can be wrong before a minute is spent, then measure, alone on the node unless it is a replay."""
    recording, original = _recorded(asked.replay, store) if asked.replay else (None, None)
    request = original.request if original else request_of(asked, site, catalog)
    catalog = catalog.of(request)
    node = original.node if original else _this_node(request, catalog)
    store.check(node.hostname)
    probes = [probe for probe in catalog.probes if probe.name in request.probes]

    def again(run: Run) -> list[str]:
        wide = [] if asked.precision is None else to_converge(run, catalog, asked.precision)
        return [*to_repeat(run, catalog, store), *wide]

    try:
        with nullcontext() if recording else lock.one_run():
            quiet_check = recording is None and request.options.get("quiet_check") != "off"
            look = partial(_look, request, signals) if quiet_check else tuple[str, ...]
            run_id, started_at = store.new_id(), now()
            measuring = [probe for probe in probes if probe.measure is not None]
            cards = len(node.facts.get("gpus") or ())
            seconds = {probe.name: probe.time(request, cards) for probe in measuring}
            one = request.model_copy(update={"storage": request.storage[:1], "peers": request.peers[:1]})
            of_one = sum(probe.time(one, cards) for probe in measuring)
            if progress and recording is None and (few := undecidable(request, catalog)):
                note(f"effort {request.effort} takes too few samples to decide {', '.join(few)}; a higher --effort can")
            for line in previews(request, catalog) if progress and recording is None else ():
                note(line)

            def so_far(results: Sequence[ProbeResult]) -> Matrix:
                """What has ended by now, judged by priors alone: the store's nights are asked at the end."""
                run = Run(id=run_id, started_at=started_at, node=node, request=request, results=tuple(results))
                return Matrix(concluded(run, catalog), catalog.probes)

            with listener(seconds, shown=progress, so_far=so_far) as listen:
                plan = RunPlan(
                    id=run_id,
                    request=request,
                    probes=probes,
                    node=node,
                    evidence=store.evidence_folder(node.hostname, started_at, run_id),
                    not_asked_for={p.name: why_not(p, request) for p in catalog.probes if p not in probes},
                    wait=partial(_busy, request.effort, asked.patience, look),
                    replay=recording,
                    replay_of=original.id if original else None,
                    listen=listen,
                    again=again,
                    look=look,
                    repeat_seconds=whole_seconds(request, sum(seconds.values()), of_one) - _AROUND_SECONDS,
                    max_seconds=_MAX_SECONDS[request.effort],
                    signals=signals,
                    sources=sources(),
                    started_at=started_at,
                )
                return execute(plan)
    except OSError as error:
        raise UserError(str(error)) from error


def previews(request: Request, catalog: Catalog, whole: bool = False) -> list[str]:
    """What is to be sent to servers of somebody else's; ``whole``: with the last line of each, the request itself."""
    asked = [p.preview(request) for p in catalog.probes if p.preview and p.needs in request.options]
    return [line for lines in asked for line in (lines if whole else lines[:-1])]


def dry_run(asked: RunOptions) -> list[str]:
    """The same for a command line, with nothing measured. Raises UserError."""
    catalog = load_catalog(asked.profile)
    return previews(request_of(asked, config(), catalog), catalog, whole=True)


def _this_node(request: Request, catalog: Catalog) -> Node:
    """This machine, with what its probes know of it; one that does not answer leaves the kernel's word."""
    told: dict[str, Any] = {}
    for name, about in ((probe.name, probe.about) for probe in catalog.probes):
        with suppress(ProbeError):
            told |= about(LiveTools(name, None)) if about else {}
    return this_node([Path(path) for path in request.storage], told)


def _recorded(folder: Path, store: Store) -> tuple[Recording, Run]:
    """The recording of ``--replay DIR`` and the run that it belongs to (stored beside it). Raises UserError."""
    raw = folder if folder.suffix != ".json" else folder.with_suffix(".raw")
    try:
        return Recording(raw), store.find(str(raw.with_suffix(".json")))
    except Failed as error:
        raise UserError(error.reason) from error
    except UnusableRun as error:
        raise UserError(f"--replay {folder}: the run document beside it is needed: {error}") from error


def _look(request: Request, signals: Signals) -> tuple[str, ...]:
    """What is busy on this node now; nothing where a signal ends the look, which the runner then sees."""
    pause = partial(tools.pause, signals=signals)
    try:
        return quiet.look(quiet.WINDOW_SECONDS[request.effort], pause, cards=ENDPOINT not in request.options)
    except Interrupted:
        return ()


def _busy(effort: Effort, patience_seconds: float | None, look: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """What is busy on this node after waiting for quiet as long as that (default: by effort)."""
    patience = quiet.PATIENCE_SECONDS[effort] if patience_seconds is None else patience_seconds
    busy = quiet.wait_until_quiet(patience, look, time.monotonic, note)
    if busy:
        note(f"contended: {', '.join(busy)}; measured all the same, and nothing is decided; --wait-quiet 10m waits")
    return busy
