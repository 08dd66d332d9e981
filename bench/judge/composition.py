"""A run with the figures that only several probes' figures together give. Pure; once is enough, and twice the same."""

from __future__ import annotations

from bench.judge import decoding, latency_budget
from bench.model import Run


def composed(run: Run) -> Run:
    """With the whole answer (of network and model), and with what the cores decode against what is demanded."""
    return decoding.composed(latency_budget.composed(run))
