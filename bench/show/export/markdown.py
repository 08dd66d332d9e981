"""GitHub-flavoured Markdown for a pull request, a step summary, a wiki or a ticket.

All foreign text is escaped: no markup, no HTML, no link, no mention, no table cell of its own, and nothing at the start
of a line that a CI runner would take for a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from bench.judge.fleet.model import Fleet, FleetVerdict, State
from bench.model import Decision, Finding, Outcome, Run, Status, Verdict
from bench.show import wording
from bench.show.export import Export
from bench.show.terminal import fleet_screen
from bench.show.text import clean

_MARK = {Decision.GO: "✅", Decision.NO_GO: "❌", Decision.INCONCLUSIVE: "❔"}
_STATE_MARK = {State.PASS: "✅", State.FAIL: "❌"}
#: Columns of numbers stand on the right.
_NUMBERS = ("score", "send", "receive")
#: Foreign characters that Markdown or GitHub gives a meaning, and what shows them as themselves. The empty comment
#: keeps ``@name`` and ``#12`` from becoming a mention or a reference, which GitHub makes after Markdown is done.
_PLAIN = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "@": "@<!-- -->",
    "#": "#<!-- -->",
    "://": "&#58;//",
    "www.": "www&#46;",
}
_SPECIAL = re.compile(r"://|(?i:www\.)|[&<>@#\\`*_{}\[\]|~$^]")


def render(export: Export) -> str:
    document = export.document
    return "\n".join(_run(document) if isinstance(document, Run) else _fleet(document)) + "\n"


def escape(text: str, longest: int | None = None) -> str:
    """Foreign text as itself: cleaned, then nothing in it has a meaning in Markdown. Not for the start of a line."""
    return _SPECIAL.sub(lambda m: _PLAIN.get(m[0].lower()) or "\\" + m[0], clean(text, longest))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; what is in its cells is Markdown already."""
    yield f"| {' | '.join(header)} |"
    yield f"| {' | '.join('---:' if name in _NUMBERS else '---' for name in header)} |"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _decided(v: Verdict | FleetVerdict) -> tuple[str, str, str]:
    return escape(v.profile, 80), f"{_MARK[v.decision]} **{v.decision.value}**", wording.scored(v)


def _section(title: str, items: Sequence[str]) -> list[str]:
    """A heading and a list; nothing for no items, which are Markdown already."""
    return ["", f"**{title}**", "", *(f"- {item}" for item in items)] if items else []


def _folded(title: str, opened: bool, lines: Iterable[str]) -> list[str]:
    return ["", f"<details{' open' if opened else ''}><summary>{title}</summary>", "", *lines, "", "</details>"]


def _run(run: Run) -> Iterator[str]:
    yield from (f"## AI readiness of {escape(run.node.hostname, 100)}", "", _about(run), "")
    if run.verdicts:
        verdicts = ((*_decided(v), _why(v)) for v in run.verdicts)
        yield from table(("profile", "decision", "score", "why"), verdicts)
    else:
        yield f"Not judged. Judge it with `bench gate {_code(run.id)}`."
    if run.attribution is not None:
        yield from ("", f"**Starvation.** {escape(run.attribution.explanation)}")
    todo = wording.to_do(run).items()
    yield from _section("To do", [f"{', '.join(map(escape, names))}: {escape(remedy)}" for remedy, names in todo])
    holes = [
        f"{one.probe} {wording.OUTCOME[one.outcome]}: {escape(wording.reason_text(one.reason))}"
        + (f"; mend: {escape(one.remedy)}" if one.remedy else "")
        for one in run.results
        if one.outcome is not Outcome.OK
    ]
    yield from _section("Not measured", holes)
    for verdict in run.verdicts:
        title = re.sub(r"[^\w ,.-]", lambda m: f"&#{ord(m[0])};<!-- -->", clean(verdict.profile, 80))
        gates = table(("gate", "measured", "needs", "margin", "status"), map(_gate, verdict.findings))
        yield from _folded(f"{title}: {len(verdict.findings)} gates", verdict.decision is Decision.NO_GO, gates)


def _about(run: Run) -> str:
    words = [wording.when(run.started_at), f"effort {run.request.effort.value}", f"run `{_code(run.id)}`"]
    stood_in = wording.stand_ins(run)
    if stood_in:
        words.append(f"stand-ins: {', '.join(map(escape, stood_in))}")
    if run.replay_of:
        words.append("a replay: nothing was measured now")
    return ", ".join(words)


def _code(text: str) -> str:
    return clean(text, 60).replace("`", "'")


def _why(verdict: Verdict) -> str:
    bad = [f for f in verdict.findings if f.required and f.status is not Status.PASS]
    failed = [f for f in bad if f.status is Status.FAIL] or bad
    if not failed:
        return "every required gate passed" if verdict.decision is Decision.GO else ""
    names = ", ".join(f"{escape(wording.gate_name(f), 120)} {wording.STATUS[f.status]}" for f in failed[:3])
    return names + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")


def _gate(f: Finding) -> Sequence[str]:
    said = (wording.gate_name(f), wording.observed(f), wording.needed(f.limit, f.metric), wording.margin(f))
    return (*map(escape, said), wording.STATUS[f.status])


def _fleet(fleet: Fleet) -> Iterator[str]:
    measured = f", measured {escape(wording.when(fleet.measured_at))}" if fleet.measured_at else ""
    yield from (f"## Fleet {escape(fleet.id, 60)}: {fleet.decision.value}", "")
    yield from (f"{wording.plural(len(fleet.nodes), 'named node')}{measured}", "")
    verdicts = ((*_decided(v), escape(fleet_screen.counts(v))) for v in fleet.verdicts)
    yield from table(("profile", "decision", "score", "nodes"), verdicts)
    together = [fleet_screen.collective_line(fleet.collective)] if fleet.collective is not None else []
    together += map(fleet_screen.shared_line, fleet.shared)
    yield from _section("Because", [escape(reason, 400) for reason in fleet.reasons])
    yield from _section("Slower than siblings", [escape(fleet_screen.outlier_line(o)) for o in fleet.outliers])
    yield from _section("The whole fleet moved", [escape(fleet_screen.shift_line(s)) for s in fleet.shifts])
    yield from _section("Together", [escape(line) for line in together])
    nodes = table(("node", "state", "score", "why"), _nodes(fleet))
    missed = any(node.state is not State.PASS for node in fleet.nodes)
    yield from _folded(wording.plural(len(fleet.nodes), "node"), missed, nodes)
    if fleet.pairs:
        pairs = table(("client", "server", "state", "send", "receive", "why"), _pairs(fleet))
        missed = any(pair.state is not State.PASS for pair in fleet.pairs)
        yield from _folded(wording.plural(len(fleet.pairs), "pair"), missed, pairs)


def _nodes(fleet: Fleet) -> Iterator[Sequence[str]]:
    for node in fleet.nodes:
        why = node.reason or "; ".join(node.failed[:3])
        shown = wording.score(node.score) if node.score is not None else ""
        yield escape(node.host, 100), _state(node.state), shown, escape(why, 300)


def _pairs(fleet: Fleet) -> Iterator[Sequence[str]]:
    for p in fleet.pairs:
        rates = (p.send_bytes_per_second, p.receive_bytes_per_second)
        shown = ("" if rate is None else wording.pair_rate(rate) for rate in rates)
        yield escape(p.client, 100), escape(p.server, 100), _state(p.state), *shown, escape(p.reason or "", 300)


def _state(state: State) -> str:
    return f"{_STATE_MARK.get(state, '❔')} {state.value}"
