"""One host's answer -> what is known of it: its outcome by the controller's profiles, and the figures to compare.

A node's own verdict counts for nothing. Only figures are kept of a run, so that ten thousand of them fit into memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.fleet.join.collect import Answer, machine
from bench.judge.fleet import verdict as rules
from bench.judge.fleet.model import NodeOutcome, State
from bench.judge.fleet.outliers import Figure, Keys
from bench.judge.fleet.outliers import figures as figures_of
from bench.judge.gate import decide, judge
from bench.model import Measurement, Outcome, ProbeResult, Run

if TYPE_CHECKING:
    from bench.fleet.join.join import Judgement


@dataclass(frozen=True, slots=True)
class Weighed:
    """A run with all but its figures thrown away; or, with ``outcome.state`` bad-result, why it is none."""

    outcome: NodeOutcome
    scores: dict[str, float] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    started_at: str = ""


def weigh_answer(host: str, answer: Answer, by: Judgement, keys: Keys, network: Sequence[Measurement] = ()) -> Weighed:
    """A file that came for that host, whatever is in it."""
    if answer.run is None:
        reason = f"bad_result: {answer.trouble}"
        return Weighed(NodeOutcome(host=host, state=State.BAD_RESULT, reason=reason))
    return weigh(host, answer.run, by, keys, network)


def weigh(host: str, run: Run, by: Judgement, keys: Keys, network: Sequence[Measurement] = ()) -> Weighed:
    """One run, judged, with what its pairs say of its network. An interrupted run counts by what it measured."""
    whole = with_network(run, network, by.owners)
    verdicts = [judge(whole, profile, by.owners) for profile in by.profiles]
    kind = rules.node_class(run.node.facts)
    outcome = NodeOutcome(
        host=host,
        state=rules.state_of(decide(verdicts)),
        hostname=run.node.hostname,
        machine=machine(run),
        node_class=kind,
        run=run.id,
        decisions={verdict.profile: verdict.decision for verdict in verdicts},
        score=min((verdict.score for verdict in verdicts), default=0.0),
        failed=rules.failed_gates(verdicts),
    )
    scores = {verdict.profile: verdict.score for verdict in verdicts}
    return Weighed(outcome, scores, tuple(figures_of(host, kind, run.measurements(), keys)), run.started_at)


def with_network(run: Run, network: Sequence[Measurement], owners: Mapping[str, str]) -> Run:
    """The run with its network result from the pairs; alone, a node measures only its loopback."""
    if not network:
        return run
    owner = owners.get(network[0].metric, "network")
    pairs = ProbeResult(probe=owner, outcome=Outcome.OK, measurements=tuple(network))
    return run.model_copy(update={"results": (*(r for r in run.results if r.probe != owner), pairs)})
