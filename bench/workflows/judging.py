"""From measurements to a conclusion: attribution and verdicts, by the profiles asked for, as long as they are fresh."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress

from bench.errors import UserError, note
from bench.judge.attribution import attribute, gap_limit
from bench.judge.baseline.series import doubted
from bench.judge.composition import composed
from bench.judge.gate import deciding, judge, status_of
from bench.judge.profile import Gate
from bench.judge.sessions import SpreadOf
from bench.measure.probe import ProbeError
from bench.model import Code, Finding, Measurement, Request, Run, Status, code_of
from bench.store.index import seconds_of
from bench.store.runs import AHEAD_SECONDS, Store
from bench.units import series_name
from bench.workflows.catalog import Catalog, load_catalog
from bench.workflows.sessions import by_nights, by_priors


def concluded(run: Run, catalog: Catalog, store: Store | None = None) -> Run:
    """The same run with its attribution and one verdict a profile.

    ``store`` knows by how much the node's sessions differ; without it the metrics' priors say.
    """
    whole = composed(run)
    attribution = attribute(run.results, gap_limit(catalog.profiles), catalog.owners)
    spread_of = by_nights(whole, catalog, store) if store else by_priors(catalog)
    owners = catalog.owners_in(run.request)
    verdicts = tuple(judge(whole, profile, owners, spread_of) for profile in catalog.profiles)
    return run.model_copy(update={"attribution": attribution, "verdicts": verdicts})


def judged(run: Run, store: Store, wanted: Sequence[str] | None = None) -> Run:
    """As it was stored; judged now if it never was, or by the profiles that are named."""
    return run if run.verdicts and not wanted else concluded(run, load_catalog(wanted).of(run.request), store)


#: What may be gone a moment later: others' work, a clock that settles, a peer that serves somebody else.
_PASSES_BY_ITSELF = {
    *(Code.CONTENDED, Code.HOST_CONTENDED, Code.ACCELERATOR_DRIFTED, Code.NOT_STEADY, Code.NOT_REPEATABLE),
    *(Code.SCHEDULE_LAG, Code.CLIENT_LIMITED, Code.CLOCK_SET, Code.PEER_BUSY),
}


def to_repeat(run: Run, catalog: Catalog, store: Store | None = None) -> list[str]:
    """Which probes to measure again: those of required gates that another round may decide."""
    spread_of = by_priors(catalog)
    if store:
        with suppress(UserError):  # told where the run is judged
            spread_of = by_nights(run, catalog, store)
    owners = catalog.owners_in(run.request)
    verdicts = [judge(run, profile, owners, spread_of) for profile in catalog.profiles]
    findings = [f for verdict in verdicts for f in verdict.findings if f.required and _may_pass(f)]
    once = {probe.name for probe in catalog.probes if probe.once}
    asked = [owners[f.metric] for f in findings if f.metric in owners]
    return [name for name in asked if name not in once]


def _may_pass(finding: Finding) -> bool:
    """Its interval straddles the limit, or what voided the figure, or failed the probe, may be gone."""
    code, _, detail = (finding.reason or "").partition(": ")
    if finding.status is Status.UNDECIDED and code == Code.STRADDLES_LIMIT:
        return True
    return code in (Code.INVALID, Code.PROBE_FAILED) and code_of(detail) in _PASSES_BY_ITSELF


def undecidable(request: Request, catalog: Catalog) -> list[str]:
    """Required gates that one round at this effort cannot decide, however well it goes: it has too few samples."""
    best = [m for p in catalog.probes if p.best and p.name in request.probes for m in p.best(request)]
    asked = [gate for profile in catalog.profiles for gate in profile.gates if gate.required]
    few = [gate for gate in asked if _out_of_reach(gate, best, by_priors(catalog))]
    return list(dict.fromkeys(series_name(gate.metric, gate.labels) for gate in few))


def _out_of_reach(gate: Gate, best: Sequence[Measurement], spread_of: SpreadOf) -> bool:
    planned = [m for m in best if m.metric == gate.metric]
    matching = [deciding(m, gate.limit, spread_of) for m in planned if gate.labels.items() <= m.labels.items()]
    return bool(planned) and not (matching and all(status_of(m, gate.limit) is Status.PASS for m in matching))


def too_old(started_at: str, whose: str, max_age_seconds: float | None) -> str | None:
    """Why what began at that time (RFC 3339) may not answer any more: ``stale: ...``; None when it is fresh.

    What is dated in the future is not fresh. Without a largest age everything is.
    """
    if max_age_seconds is None:
        return None
    try:
        age = time.time() - seconds_of(started_at)
    except ValueError:
        return f"{Code.STALE}: started_at of {whose} is not a time"
    if age > max_age_seconds:
        return f"{Code.STALE}: measured {age / 3600.0:.1f} h ago, at most {max_age_seconds / 3600.0:.1f} h are allowed"
    if age < -AHEAD_SECONDS:
        return f"{Code.STALE}: dated {-age / 3600.0:.1f} h in the future; check the node's clock"
    return None


def fresh(run: Run, max_age_seconds: float | None) -> Run:
    """The same run where it is young enough; else INCONCLUSIVE, with its age as the reason."""
    reason = too_old(run.started_at, f"run {run.id}", max_age_seconds)
    if reason is None:
        return run
    note(reason)
    return run.model_copy(update={"verdicts": tuple(doubted(verdict, reason) for verdict in run.verdicts)})


def unchanged(run: Run, catalog: Catalog, inputs: str | None) -> Run:
    """The same run where the data sets named (a JSON list) are as it measured them; else INCONCLUSIVE, and why.

    Raises UserError for one that it did not measure, or that cannot be read.
    """
    if not inputs:
        return run
    from bench.measure.recording import LiveTools

    measured = [m for result in run.results for m in result.measurements]
    for probe in catalog.probes:
        if probe.changed is None:
            continue
        for data in json.loads(inputs):
            try:
                reason = probe.changed(LiveTools(probe.name, None), measured, data)
            except ProbeError as error:
                raise UserError(f"--data {data}: {error.reason.partition(': ')[2]}") from error
            if reason is not None:
                note(reason)
                stale = f"{Code.STALE}: {reason}"
                run = run.model_copy(update={"verdicts": tuple(doubted(verdict, stale) for verdict in run.verdicts)})
    return run
