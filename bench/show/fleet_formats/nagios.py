"""The fleet as one Nagios service: a line with the verdict and the counts, then every host, the bad ones first.

By the contract GO is 0, NO-GO 2, INCONCLUSIVE and no verdict 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bench.judge.fleet.model import Fleet, NodeOutcome, State
from bench.show.export import nagios
from bench.show.fleet_formats import FleetExport
from bench.show.text import clean
from bench.show.wording import plural, score


def render(export: FleetExport) -> str:
    if export.stale:
        return nagios.unknown(export.stale, "FLEET")
    fleet = export.fleet
    first = f"FLEET {nagios.STATE[fleet.decision]}: {fleet.decision.value} {plural(len(fleet.nodes), 'node')}"
    if fleet.reasons:
        first += f": {clean(fleet.reasons[0], 200)}"
    lines = [f"{nagios.plain(first)} | {' '.join(_figures(fleet))}", *map(nagios.plain, _more(fleet))]
    return "\n".join(lines) + "\n"


def _figures(fleet: Fleet) -> Iterator[str]:
    """Counts of hosts by state; each host but those that pass is one too many."""
    states = Counter(node.state for node in fleet.nodes)
    for state in State:
        limit = ";;0" if state is not State.PASS else ""
        yield f"'{state.value}'={states[state]}{limit}"
    yield f"'pairs_without_figure'={sum(pair.state is not State.PASS for pair in fleet.pairs)};;0"
    yield f"'outliers'={sum(o.level == 'act' for o in fleet.outliers)};;0"


def _more(fleet: Fleet) -> Iterator[str]:
    said = (f"{clean(v.profile, 60)} {v.decision.value} {score(v.score)}" for v in fleet.verdicts)
    yield ", ".join(said) or "not judged"
    yield from (clean(reason, 300) for reason in fleet.reasons[1:])
    for node in sorted(fleet.nodes, key=lambda node: node.state is State.PASS):
        yield _line(node)


def _line(node: NodeOutcome) -> str:
    why = node.reason or (node.failed[0] if node.failed else "")
    return f"{clean(node.host, 255)}: {node.state.value}" + (f": {clean(why, 200)}" if why else "")
