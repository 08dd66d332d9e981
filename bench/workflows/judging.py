"""From measurements to a conclusion: attribution and verdicts, by the profiles asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.judge.attribution import attribute, gap_limit
from bench.judge.gate import judge
from bench.judge.latency_budget import response
from bench.judge.profile import Profile
from bench.model import Code, Outcome, ProbeResult, Run, Status, code_of

RESPONSE = "response"


def composed(run: Run) -> Run:
    """The run with the whole answer put together from its network and its model, where both were measured."""
    if any(result.probe == RESPONSE for result in run.results):
        return run
    found = response(run)
    extra = [ProbeResult(probe=RESPONSE, outcome=Outcome.OK, measurements=tuple(found))] if found else []
    return run.model_copy(update={"results": (*run.results, *extra)})


def concluded(run: Run, profiles: Sequence[Profile], owners: Mapping[str, str]) -> Run:
    """The same run with its attribution and one verdict a profile. ``owners``: metric -> its probe."""
    attribution = attribute(run.results, gap_limit(profiles), owners)
    whole = composed(run)
    verdicts = tuple(judge(whole, profile, owners) for profile in profiles)
    return run.model_copy(update={"attribution": attribution, "verdicts": verdicts})


def to_repeat(profiles: Sequence[Profile], owners: Mapping[str, str]) -> Callable[[Run], list[str]]:
    """Which probes to measure again: those of required gates whose interval straddles the limit."""

    def straddling(run: Run) -> list[str]:
        findings = [finding for profile in profiles for finding in judge(run, profile, owners).findings]
        return [
            owners[finding.metric]
            for finding in findings
            if finding.required
            and finding.status is Status.UNDECIDED
            and code_of(finding.reason) is Code.STRADDLES_LIMIT
            and finding.metric in owners
        ]

    return straddling
