"""Small builders of runs, measurements and profiles for the judge's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import settings

from bench.judge.profile import Gate, Profile
from bench.model import Effort, Measurement, Node, Outcome, ProbeResult, Request, Run

#: No deadline: the first call of some functions imports scipy, and the machine may be busy.
bounded = settings(deadline=None, max_examples=150)


def measurement(metric: str, value: float, width: float = 0.0, **more: Any) -> Measurement:
    """A measurement with the interval ``value -+ width``; labels as ``labels={...}``."""
    interval = more.pop("interval", (value - width, value + width))
    return Measurement(metric=metric, value=value, interval=interval, samples=5, **more)


def result(probe: str, measurements: Sequence[Measurement] = (), **more: Any) -> ProbeResult:
    outcome = more.pop("outcome", Outcome.OK)
    return ProbeResult(probe=probe, outcome=outcome, measurements=tuple(measurements), **more)


def run(*results: ProbeResult, storage: tuple[str, ...] = (), peers: tuple[str, ...] = (), **more: Any) -> Run:
    request = Request(effort=Effort.QUICK, probes=(), storage=storage, peers=peers)
    node = Node(hostname="node1", fingerprint="f")
    return Run(id="r1", started_at="2030-01-01T00:00:00Z", node=node, request=request, results=results, **more)


def gate(metric: str = "host_things", **more: Any) -> Gate:
    return Gate(metric=metric, source=more.pop("source", "a source"), **more)


def profile(*gates: Gate) -> Profile:
    return Profile(name="a-profile", gate=gates)
