"""What the echo proved of a network's spikes, in a sentence beside the verdict that needs them rare."""

from __future__ import annotations

import math

from bench.model import Decision, Measurement, Run, Verdict
from bench.show.text import clean

_BOUND, _EVENTS = "network_spike_rate_upper_bound_per_second", "network_spike_events"
#: A profile with a gate on this asks for the network as a person feels it.
_FELT = "network_round_trip_seconds"
_HOUR = 3600.0


def proved(run: Run, verdict: Verdict) -> list[str]:
    """A sentence a peer, for a GO that rests on round trips: spikes seen, and how many an hour are still plausible.

    The rate is one-sided, Poisson, 95 %. Empty where it was not measured, or is for the record only.
    """
    if verdict.decision is not Decision.GO or all(finding.metric != _FELT for finding in verdict.findings):
        return []
    bounds = [bound for bound in run.find(_BOUND) if bound.invalid is None]
    peers = dict.fromkeys(bound.labels.get("peer", "") for bound in bounds)
    return [_sentence(run, peer, bounds, several=len(peers) > 1) for peer in peers]


def _sentence(run: Run, peer: str, bounds: list[Measurement], several: bool) -> str:
    own = [bound for bound in bounds if bound.labels.get("peer", "") == peer]
    notes = [clean(peer, 60)] if several else []
    notes += [f"stand-in: {clean(own[0].stand_in, 60)}"] if own[0].stand_in else []
    said: dict[str, list[str]] = {}
    for bound in own:
        said.setdefault(_said(run, bound), []).append(clean(bound.labels.get("state", ""), 20))
    parts = [text if len(said) == 1 else f"{' and '.join(states)}: {text}" for text, states in said.items()]
    head = f"network spikes ({', '.join(notes)})" if notes else "network spikes"
    return f"{head}{': ' if len(said) == 1 else ', '}{'; '.join(parts)}"


def _said(run: Run, bound: Measurement) -> str:
    seen = _seen(run, bound)
    most = f"at most {bound.value * _HOUR:.3g} an hour at 95 %"
    return most if seen is None else f"{f'{seen:.0f}' if seen else 'none'} seen, {most}"


def _seen(run: Run, bound: Measurement) -> float | None:
    """The network's own events above the lowest threshold, which is what the rate is of; None where none is told."""
    same = {**bound.labels, "place": "network"}
    found = run.find(_EVENTS, **same)
    return min(found, key=_threshold).value if found else None


def _threshold(events: Measurement) -> float:
    try:
        return float(events.labels.get("threshold_seconds", "inf"))
    except ValueError:  # a stored run may hold any text
        return math.inf
