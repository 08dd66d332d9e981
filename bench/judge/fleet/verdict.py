"""Many nodes' outcomes -> one verdict. What is missing is missing, and never passes.

A profile is NO-GO for the fleet when one node is NO-GO for it, a confirmed outlier acts or all nodes moved
towards worse and a second measurement says so too; INCONCLUSIVE when a named host has no result, could not be decided,
or an outlier stands on a single measurement; GO only when every named host is GO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.judge.fleet.model import (
    ANSWERED,
    FleetVerdict,
    NodeOutcome,
    Outlier,
    PairOutcome,
    SharedStorage,
    Shift,
    State,
)
from bench.model import Decision, Status, Verdict

#: A node's state from the worst of its profiles' decisions.
STATE_OF = {Decision.GO: State.PASS, Decision.NO_GO: State.FAIL, Decision.INCONCLUSIVE: State.INCONCLUSIVE}
_MOST_NAMED = 5
_MOST_REASONS = 12


def node_class(facts: Mapping[str, Any]) -> str:
    """Siblings have the same processors, memory (to the GiB that was bought) and GPUs. Readable, for the page.

    Kernel and tool versions are left out: an old driver on one of many is a cause to be found, not another class.
    """
    cpu = facts.get("cpu")
    cpu = cpu if isinstance(cpu, dict) else {}
    memory, gpus = facts.get("memory_bytes"), facts.get("gpus")
    gib = f"{round(memory / 2**30)} GiB" if isinstance(memory, int | float) else "? GiB"
    names = Counter(str(gpu)[:80] for gpu in gpus) if isinstance(gpus, list | tuple) else Counter[str]()
    counted = ", ".join(f"{number} x {name}" for name, number in sorted(names.items())) or "no GPU"
    return f"{str(cpu.get('logical', '?'))[:10]} x {str(cpu.get('model', '?'))[:80]}, {gib}, {counted}"


def failed_gates(verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    """The required gates that did not pass, in short, without repetition; those that failed before those undecided."""
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    found = (
        f"{finding.metric}{_labels(finding.labels)}: {finding.status.value}"
        + (f" ({finding.reason})" if finding.reason and finding.status is not Status.FAIL else "")
        for finding in sorted(findings, key=lambda finding: finding.status is not Status.FAIL)
        if finding.required and finding.status is not Status.PASS
    )
    return tuple(text[:300] for text in dict.fromkeys(found))[:_MOST_REASONS]


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key}={value}" for key, value in labels.items()) + "}" if labels else ""


def verdict(
    profile: str,
    digest: str,
    nodes: Sequence[NodeOutcome],
    scores: Mapping[str, float],
    outliers: Sequence[Outlier] = (),
    holes: Sequence[str] = (),
    shifts: Sequence[Shift] = (),
) -> FleetVerdict:
    """One profile's answer. ``scores`` by host; ``holes`` are other things that are missing (pairs, a collective)."""
    hosts: dict[str, list[str]] = {}
    for node in nodes:
        hosts.setdefault(_word(node, profile), []).append(node.host)

    def named(word: str, title: str) -> list[str]:
        return [f"{title}: {names(hosts[word])}"] if word in hosts else []

    missing = [line for state in State for line in named(state.value, state.value)]
    undecided = named(Decision.INCONCLUSIVE.value, "undecided")
    bad = [*named(Decision.NO_GO.value, "no_go"), *_outliers(outliers, confirmed=True), *_moved(shifts, confirmed=True)]
    suspects = [*_outliers(outliers, confirmed=False), *_moved(shifts, confirmed=False)]
    complete = list(hosts) == [Decision.GO.value]
    sure = Decision.GO if complete and not suspects and not holes else Decision.INCONCLUSIVE
    return FleetVerdict(
        profile=profile,
        digest=digest,
        decision=Decision.NO_GO if bad else sure,
        score=min((scores.get(node.host, 0.0) for node in nodes), default=0.0),
        nodes={word: len(named) for word, named in hosts.items()},
        reasons=tuple(text[:4000] for text in [*bad, *suspects, *missing, *undecided, *holes])[:_MOST_REASONS],
    )


def _word(node: NodeOutcome, profile: str) -> str:
    """How a node counts for a profile: its decision, or its state when it has no result."""
    if node.state not in ANSWERED:
        return node.state.value
    return node.decisions.get(profile, Decision.INCONCLUSIVE).value


def _outliers(outliers: Sequence[Outlier], confirmed: bool) -> list[str]:
    """One line for each part that is slow: by its worst figure, all figures of a part having one cause."""
    word = "outlier" if confirmed else "suspect"
    acting = (o for o in outliers if o.level == "act" and o.confirmed is confirmed)
    parts: dict[tuple[str, str], Outlier] = {}
    for o in sorted(acting, key=lambda o: -o.deviation_ratio):
        parts.setdefault((o.host, o.part), o)
    return [
        f"{word}: {o.part} of {o.host} is {100 * o.deviation_ratio:.0f} % worse than its {o.siblings - 1} siblings"
        for o in parts.values()
    ]


def _moved(shifts: Sequence[Shift], confirmed: bool) -> list[str]:
    """What all nodes do worse than before, by the words that the gate has for one node."""
    word = "regressed" if confirmed else "suspect"
    return [
        f"{word}: {s.metric}{_labels(s.labels)} is {100 * s.shift_ratio:.0f} "
        f"{'points' if s.metric.endswith('_ratio') else '%'} worse than before on all of {s.nodes} nodes"
        for s in shifts
        if s.level == "act" and s.confirmed is confirmed
    ]


def pair_holes(pairs: Sequence[PairOutcome]) -> list[str]:
    """Pairs that were to be measured and were not."""
    missing = [f"{pair.client}-{pair.server}" for pair in pairs if pair.state is not State.PASS]
    return [f"pairs: {len(missing)} of {len(pairs)} without a figure ({names(missing)})"] if missing else []


def shared_holes(shared: Sequence[SharedStorage]) -> list[str]:
    """Hosts that were to read the shared storage with all others at once and have no figure."""
    return [f"shared storage: without a figure: {names(one.missing)}" for one in shared if one.missing]


def names(hosts: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(hosts) - _MOST_NAMED
    return ", ".join(hosts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
