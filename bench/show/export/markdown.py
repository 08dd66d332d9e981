"""GitHub-flavoured Markdown for a pull request, a step summary, a wiki or a ticket.

All foreign text is escaped: no markup, no HTML, no link, no mention, no table cell of its own, and nothing at the start
of a line that a CI runner would take for a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.model import Decision, Finding, Outcome, Run, Status, Verdict
from bench.show.export import Export
from bench.show.text import clean
from bench.show.wording import STATUS, gate_name, margin, needed, observed, reason_text, score, when

MARK = {Decision.GO: "✅", Decision.NO_GO: "❌", Decision.INCONCLUSIVE: "❔"}
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


def escape(text: str, longest: int | None = None) -> str:
    """Foreign text as itself: cleaned, then nothing in it has a meaning in Markdown. Not for the start of a line."""
    return _SPECIAL.sub(lambda m: _PLAIN.get(m[0].lower()) or "\\" + m[0], clean(text, longest))


def render(export: Export) -> str:
    run = export.run
    lines = [f"## AI readiness of {escape(run.node.hostname, 100)}", "", _about(run), "", *_verdicts(run)]
    if run.attribution is not None:
        lines += ["", f"**Starvation.** {escape(run.attribution.explanation)}"]
    lines += section("To do", _to_do(run)) + section("Not measured", _not_measured(run))
    for verdict in run.verdicts:
        lines += ["", *_gates(verdict)]
    return "\n".join(lines) + "\n"


def _about(run: Run) -> str:
    words = [when(run.started_at), f"effort {run.request.effort.value}", f"run `{_code(run.id)}`"]
    stand_ins = sorted({m.stand_in for m in run.measurements() if m.stand_in})
    if stand_ins:
        words.append(f"stand-ins: {', '.join(escape(s, 60) for s in stand_ins)}")
    if run.replay_of:
        words.append("a replay: nothing was measured now")
    return ", ".join(words)


def _code(text: str) -> str:
    return clean(text, 60).replace("`", "'")


def _verdicts(run: Run) -> Iterator[str]:
    if not run.verdicts:
        yield f"Not judged. Judge it with `bench gate {_code(run.id)}`."
        return
    yield "| profile | decision | score | why |"
    yield "| --- | --- | ---: | --- |"
    for v in run.verdicts:
        yield f"| {escape(v.profile, 80)} | {MARK[v.decision]} **{v.decision.value}** | {score(v.score)} | {_why(v)} |"


def _why(verdict: Verdict) -> str:
    bad = [f for f in verdict.findings if f.required and f.status is not Status.PASS]
    failed = [f for f in bad if f.status is Status.FAIL] or bad
    if not failed:
        return "every required gate passed" if verdict.decision is Decision.GO else ""
    names = ", ".join(f"{escape(gate_name(f), 120)} {STATUS[f.status]}" for f in failed[:3])
    return names + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")


def _gates(verdict: Verdict) -> Iterator[str]:
    opened = " open" if verdict.decision is Decision.NO_GO else ""
    title = re.sub(r"[^\w ,.-]", lambda m: f"&#{ord(m[0])};<!-- -->", clean(verdict.profile, 80))
    yield f"<details{opened}><summary>{title}: {len(verdict.findings)} gates</summary>"
    yield ""
    yield "| gate | measured | needs | margin | status |"
    yield "| --- | --- | --- | --- | --- |"
    for f in verdict.findings:
        cells = (gate_name(f), observed(f), needed(f.limit, f.metric), margin(f))
        yield f"| {' | '.join(escape(cell) for cell in cells)} | {STATUS[f.status]} |"
    yield ""
    yield "</details>"


def section(title: str, items: list[str]) -> list[str]:
    """A heading and a list; nothing for no items, which are Markdown already."""
    return ["", f"**{title}**", "", *(f"- {item}" for item in items)] if items else []


def _to_do(run: Run) -> list[str]:
    found: dict[str, list[Finding]] = {}
    for finding in (f for v in run.verdicts for f in v.findings if f.required):
        if finding.status in (Status.FAIL, Status.UNDECIDED) and finding.remedy:
            found.setdefault(finding.remedy, []).append(finding)
    return [
        f"{', '.join(dict.fromkeys(escape(gate_name(f)) for f in gates))}: {escape(remedy)}"
        for remedy, gates in found.items()
    ]


def _not_measured(run: Run) -> list[str]:
    found = []
    for result in run.results:
        if result.outcome is not Outcome.OK:
            mend = f"; mend: {escape(result.remedy)}" if result.remedy else ""
            why = escape(reason_text(result.reason or ""))
            found.append(f"{result.probe} {result.outcome.value.replace('_', ' ')}: {why}{mend}")
    return found
