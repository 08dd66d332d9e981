"""A fleet as test cases, for the formats that CI systems read.

Suites: the fleet's verdicts, every named host, every pair, who is slower than its siblings, the collective, shared
storage, what moved on all nodes. As for a single run: pass, failure for NO-GO, error for what is missing, undecided or
accused by a single measurement; never skipped. What only warns passes as a case and is told beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.judge.fleet.model import Fleet, FleetVerdict, NodeOutcome, Outlier, PairOutcome, SharedStorage, Shift, State
from bench.model import Decision
from bench.show.export.cases import BY_DECISION, Case, CaseState, Suite, numbered
from bench.show.terminal import fleet as fleet_screen
from bench.show.text import clean
from bench.show.wording import plural, score
from bench.units import human

_BY_STATE: dict[State, CaseState] = {State.PASS: "pass", State.FAIL: "failure"}
_RATE = "network_throughput_bytes_per_second"
_LONGEST = 300


def suites(fleet: Fleet) -> list[Suite]:
    """Those for which there is anything to say; the first two always."""
    found = [
        _suite("fleet", [_verdict(v) for v in fleet.verdicts] or [_unjudged(fleet)]),
        _suite("nodes", [_node(node) for node in fleet.nodes]),
        _suite("pairs", [_pair(pair) for pair in fleet.pairs]),
        _suite("siblings", [_outlier(o) for o in fleet.outliers], _warnings(fleet)),
        _suite("collective", _collective(fleet)),
        _suite("shared storage", [_shared(one) for one in fleet.shared]),
        _suite("whole fleet", [_shift(shift) for shift in fleet.shifts if shift.level == "act"], _moves(fleet)),
    ]
    return [suite for suite in found if suite.cases or suite.notes]


def _suite(name: str, cases: Sequence[Case], notes: Sequence[str] = ()) -> Suite:
    return Suite(name, tuple(numbered(cases)), tuple(notes))


def _verdict(verdict: FleetVerdict) -> Case:
    counts = ", ".join(f"{number} {clean(word)}" for word, number in sorted(verdict.nodes.items()))
    message = f"{verdict.decision.value}, score {score(verdict.score)}: {counts}"
    reasons = tuple(clean(reason) for reason in verdict.reasons)
    name = clean(verdict.profile, 200) or "profile"
    return Case(name, BY_DECISION[verdict.decision], verdict.decision.value, message, reasons)


def _unjudged(fleet: Fleet) -> Case:
    return Case("verdict", "error", Decision.INCONCLUSIVE.value, f"not judged: {plural(len(fleet.nodes), 'node')}")


def _node(node: NodeOutcome) -> Case:
    said = [f"{clean(profile, 60)} {decision.value}" for profile, decision in node.decisions.items()]
    message = ", ".join(said) if said else clean(node.reason or "no result", _LONGEST)
    details = [f"{word}: {clean(text)}" for word, text in _facts(node) if text]
    details += [f"did not pass: {clean(text)}" for text in node.failed]
    return Case(_host(node.host), _state(node.state), node.state.value, message, tuple(details))


def _facts(node: NodeOutcome) -> list[tuple[str, str | None]]:
    return [("hostname", node.hostname), ("class", node.node_class), ("run", node.run), ("reason", node.reason)]


def _pair(pair: PairOutcome) -> Case:
    rates = (("send", pair.send_bytes_per_second), ("receive", pair.receive_bytes_per_second))
    figures = [f"{word} {human(rate, _RATE)}" for word, rate in rates if rate is not None]
    message = ", ".join(figures) if pair.state is State.PASS else clean(pair.reason or "no figure", _LONGEST)
    details = tuple(f"{word}: {rate!r} bytes per second" for word, rate in rates if rate is not None)
    return Case(f"{_host(pair.client)} - {_host(pair.server)}", _state(pair.state), pair.state.value, message, details)


def _outlier(o: Outlier) -> Case:
    """A failure when it acts and is confirmed, an error (a suspicion) when it acts, else it only warns."""
    state: CaseState = "pass" if o.level != "act" else "failure" if o.confirmed else "error"
    raw = o.level if o.level != "act" else "outlier" if o.confirmed else "suspect"
    details = [f"metric: {o.metric}", *(f"label: {k}={clean(v, 200)}" for k, v in sorted(o.labels.items()))]
    details += [f"observed: {o.observed!r}", f"expected: {o.expected!r}", f"modified z: {o.modified_z:.1f}"]
    return Case(f"{_host(o.host)}: {clean(o.part, 100)}", state, raw, fleet_screen.outlier_line(o), tuple(details))


def _warnings(fleet: Fleet) -> list[str]:
    warned = [o for o in fleet.outliers if o.level == "warn"]
    return [f"warns, does not decide: {fleet_screen.outlier_line(o)}" for o in warned]


def _collective(fleet: Fleet) -> list[Case]:
    found = fleet.collective
    if found is None:
        return []
    lines = [f"{_host(host)}: {state.value}{f': {clean(why)}' if why else ''}" for host, state, why in found.rows]
    said = fleet_screen.collective_line(found)
    return [Case("all-reduce", _state(found.state), found.state.value, said, tuple(lines))]


def _shared(one: SharedStorage) -> Case:
    state: CaseState = "error" if one.missing or not one.together else "pass"
    lines = [f"{_host(host)}: {rate!r} bytes per second with all at once" for host, rate in one.together.items()]
    lines += [f"{_host(host)}: no figure" for host in one.missing]
    raw = "pass" if state == "pass" else "no_data"
    return Case(clean(one.path, 200) or "?", state, raw, fleet_screen.shared_line(one), tuple(lines))


def _shift(shift: Shift) -> Case:
    raw = "regressed" if shift.confirmed else "suspect"
    name = f"{shift.metric} {' '.join(f'{k}={clean(v, 60)}' for k, v in sorted(shift.labels.items()))}".strip()
    details = (f"class: {clean(shift.node_class)}", f"nodes: {shift.nodes}", f"shift: {shift.shift_ratio!r}")
    return Case(name, "failure" if shift.confirmed else "error", raw, fleet_screen.shift_line(shift), details)


def _moves(fleet: Fleet) -> list[str]:
    moved = [shift for shift in fleet.shifts if shift.level != "act"]
    return [f"moved, does not decide: {fleet_screen.shift_line(shift)}" for shift in moved]


def _state(state: State) -> CaseState:
    return _BY_STATE.get(state, "error")


def _host(name: str) -> str:
    return clean(name, 255) or "?"
