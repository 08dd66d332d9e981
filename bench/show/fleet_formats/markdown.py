"""The fleet as GitHub-flavoured Markdown: verdicts, what is wrong, and a table with every named host.

All foreign text is escaped by the same rules as a single run's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.judge.fleet.model import Fleet, NodeOutcome, PairOutcome, State
from bench.show.export.markdown import MARK, escape, section
from bench.show.fleet_formats import FleetExport
from bench.show.terminal import fleet as fleet_screen
from bench.show.wording import plural, score, when
from bench.units import human

_RATE = "network_throughput_bytes_per_second"
_STATES = {State.PASS: "✅", State.FAIL: "❌"}


def render(export: FleetExport) -> str:
    fleet = export.fleet
    lines = [f"## Fleet {escape(fleet.id, 60)}: {fleet.decision.value}", "", _about(fleet), "", *_verdicts(fleet)]
    lines += section("Because", [escape(reason, 400) for reason in fleet.reasons])
    lines += section("Slower than siblings", [escape(fleet_screen.outlier_line(o)) for o in fleet.outliers])
    lines += section("The whole fleet moved", [escape(fleet_screen.shift_line(s)) for s in fleet.shifts])
    lines += section("Together", _together(fleet))
    lines += ["", *_nodes(fleet.nodes)]
    lines += ["", *_pairs(fleet.pairs)] if fleet.pairs else []
    return "\n".join(lines) + "\n"


def _about(fleet: Fleet) -> str:
    measured = f", measured {escape(when(fleet.measured_at))}" if fleet.measured_at else ""
    return f"{plural(len(fleet.nodes), 'named node')}{measured}"


def _verdicts(fleet: Fleet) -> Iterator[str]:
    yield "| profile | decision | score | nodes |"
    yield "| --- | --- | ---: | --- |"
    for v in fleet.verdicts:
        counts = ", ".join(f"{number} {escape(word)}" for word, number in sorted(v.nodes.items()))
        mark = f"{MARK[v.decision]} **{v.decision.value}**"
        yield f"| {escape(v.profile, 80)} | {mark} | {score(v.score)} | {counts} |"


def _together(fleet: Fleet) -> list[str]:
    found = [fleet_screen.collective_line(fleet.collective)] if fleet.collective is not None else []
    return [escape(line) for line in [*found, *map(fleet_screen.shared_line, fleet.shared)]]


def _nodes(nodes: Sequence[NodeOutcome]) -> Iterator[str]:
    yield from _folded(plural(len(nodes), "node"), any(node.state is not State.PASS for node in nodes))
    yield "| node | state | score | why |"
    yield "| --- | --- | ---: | --- |"
    for node in nodes:
        why = node.reason or "; ".join(node.failed[:3])
        shown = score(node.score) if node.score is not None else ""
        state = f"{_STATES.get(node.state, '❔')} {node.state.value}"
        yield f"| {escape(node.host, 100)} | {state} | {shown} | {escape(why, 300)} |"
    yield from ("", "</details>")


def _pairs(pairs: Sequence[PairOutcome]) -> Iterator[str]:
    yield from _folded(plural(len(pairs), "pair"), any(pair.state is not State.PASS for pair in pairs))
    yield "| client | server | state | send | receive | why |"
    yield "| --- | --- | --- | ---: | ---: | --- |"
    for p in pairs:
        rates = (p.send_bytes_per_second, p.receive_bytes_per_second)
        shown = " | ".join("" if rate is None else human(rate, _RATE) for rate in rates)
        ends = f"{escape(p.client, 100)} | {escape(p.server, 100)}"
        yield f"| {ends} | {_STATES.get(p.state, '❔')} {p.state.value} | {shown} | {escape(p.reason or '', 300)} |"
    yield from ("", "</details>")


def _folded(title: str, opened: bool) -> Iterator[str]:
    yield f"<details{' open' if opened else ''}><summary>{title}</summary>"
    yield ""
