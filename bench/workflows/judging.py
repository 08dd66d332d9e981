"""From measurements to a conclusion: attribution and verdicts, by the profiles asked for, as long as they are fresh."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import chain

from bench.errors import note
from bench.judge.attribution import attribute, gap_limit
from bench.judge.baseline.series import doubted
from bench.judge.gate import judge, status_of
from bench.judge.latency_budget import composed
from bench.judge.profile import Gate
from bench.model import Code, Finding, Measurement, Request, Run, Status, code_of
from bench.store.index import seconds_of
from bench.units import series_name
from bench.workflows.catalog import Catalog, load_catalog


def concluded(run: Run, catalog: Catalog) -> Run:
    """The same run with its attribution and one verdict a profile."""
    whole = composed(run)
    attribution = attribute(run.results, gap_limit(catalog.profiles), catalog.owners)
    verdicts = tuple(judge(whole, profile, catalog.owners) for profile in catalog.profiles)
    return run.model_copy(update={"attribution": attribution, "verdicts": verdicts})


def judged(run: Run, wanted: Sequence[str] | None = None) -> Run:
    """As it was stored; judged now if it never was, or by the profiles that are named."""
    return run if run.verdicts and not wanted else concluded(run, load_catalog(wanted))


#: What may be gone a moment later: others' work, a clock that settles, a peer that serves somebody else.
_PASSES_BY_ITSELF = {
    *(Code.CONTENDED, Code.HOST_CONTENDED, Code.ACCELERATOR_DRIFTED, Code.NOT_STEADY, Code.NOT_REPEATABLE),
    *(Code.SCHEDULE_LAG, Code.CLOCK_SET, Code.PEER_BUSY),
}


def to_repeat(run: Run, catalog: Catalog) -> list[str]:
    """Which probes to measure again: those of required gates that another round may decide."""
    findings = [f for profile in catalog.profiles for f in judge(run, profile, catalog.owners).findings]
    return [catalog.owners[f.metric] for f in findings if f.required and _may_pass(f) and f.metric in catalog.owners]


def _may_pass(finding: Finding) -> bool:
    """Its interval straddles the limit, or what voided the figure, or failed the probe, may be gone."""
    code, _, detail = (finding.reason or "").partition(": ")
    if finding.status is Status.UNDECIDED and code == Code.STRADDLES_LIMIT:
        return True
    return code in (Code.INVALID, Code.PROBE_FAILED) and code_of(detail) in _PASSES_BY_ITSELF


def undecidable(request: Request, catalog: Catalog) -> list[str]:
    """Required gates that one round at this effort cannot decide, however well it goes: it has too few samples."""
    best = {p.name: p.best(request) for p in catalog.probes if p.best and p.name in request.probes}
    asked = [gate for profile in catalog.profiles for gate in profile.gates if gate.required]
    return list(
        dict.fromkeys(series_name(g.metric, g.labels) for g in asked if _out_of_reach(g, chain(*best.values())))
    )


def _out_of_reach(gate: Gate, best: Iterable[Measurement]) -> bool:
    planned = [m for m in best if m.metric == gate.metric]
    matching = [m for m in planned if gate.labels.items() <= m.labels.items()]
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
    if age < -300.0:
        return f"{Code.STALE}: dated {-age / 3600.0:.1f} h in the future; check the node's clock"
    return None


def fresh(run: Run, max_age_seconds: float | None) -> Run:
    """The same run where it is young enough; else INCONCLUSIVE, with its age as the reason."""
    reason = too_old(run.started_at, f"run {run.id}", max_age_seconds)
    if reason is None:
        return run
    note(reason)
    return run.model_copy(update={"verdicts": tuple(doubted(verdict, reason) for verdict in run.verdicts)})
