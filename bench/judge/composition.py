"""A run with the figures that only several probes' figures together give. Pure; once is enough, and twice the same."""

from __future__ import annotations

from bench.judge.decoding import DECODING, headrooms
from bench.judge.latency_budget import RESPONSE, response
from bench.model import Outcome, ProbeResult, Run

#: Under each name, as of a probe, a run holds what was put together; with the evidence of these probes.
_COMPOSED = ((RESPONSE, response, ()), (DECODING, headrooms, ("data", "feed")))


def composed(run: Run) -> Run:
    """With the whole answer (of network and model) and what the cores decode against what is demanded, where both parts
    of such a figure were measured.
    """
    for name, figures, probes in _COMPOSED:
        found = () if any(result.probe == name for result in run.results) else tuple(figures(run))
        if found:
            evidence = tuple(one for result in run.results if result.probe in probes for one in result.evidence)
            made = ProbeResult(probe=name, outcome=Outcome.OK, measurements=found, evidence=evidence)
            run = run.model_copy(update={"results": (*run.results, made)})
    return run
