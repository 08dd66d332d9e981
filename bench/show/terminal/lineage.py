"""The path of a gate: verdict, limit and its source, figure, the lines of raw output it stands on, the command line.

Whether the output is still the one that was measured is checked by its sha256.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.model import Finding, Measurement, ProbeResult, Run, Source, Status, Verdict
from bench.show import wording
from bench.show.matrix import place_of
from bench.show.names import columns, figure, gate_name, needed
from bench.show.raw_output import Call, Lines, RawOutput
from bench.show.text import clean, fold

#: Which lines a figure stands on; `bench.workflows.lineage.Tracer` is one.
Trace = Callable[[ProbeResult, Measurement], Sequence[Lines]]
_WIDTH = 100
_INDENT = 14
_MOST_TEXT = 160
_MOST_REPEATS = 20
_MOST_CALLS = 3
_MOST_WARNINGS = 5
#: A trace stops after so many places.
MOST_LINES = 5
_ORDER = (Status.FAIL, Status.UNDECIDED, Status.NO_DATA, Status.PASS)


@dataclass(frozen=True, slots=True)
class GatePath:
    """One gate, of all the profiles that ask for it alike."""

    finding: Finding
    verdicts: tuple[Verdict, ...]
    place: str = ""
    columns: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As the screen calls it: ``storage read latency p99``."""
        return gate_name(self.finding.metric, self.finding.labels)

    @property
    def title(self) -> str:
        """Title and labels: ``storage read (random, 4 KiB)``."""
        return wording.bare_name(self.finding)

    @property
    def names(self) -> set[str]:
        """What the screen, the run's document and the profiles' file call it, and those of the profiles that ask."""
        profiles = (*(verdict.profile for verdict in self.verdicts), *self.columns)
        return {self.finding.metric, self.title, self.name, f"{self.name}, {self.place}", *profiles}

    @property
    def words(self) -> set[str]:
        """All that it may be called by."""
        return _words(f"{self.finding.metric} {self.title} {self.name} {' '.join(self.finding.labels.values())}")


def gate_paths(run: Run) -> list[GatePath]:
    """Every gate, the one that decided first: required before optional, failing before undecided, no data, passing.

    Of those that fail the farthest from its limit stands first, of those that pass the closest.
    """
    same: dict[tuple[object, ...], list[tuple[Finding, Verdict, str]]] = {}
    for verdict, column in zip(run.verdicts, columns([verdict.profile for verdict in run.verdicts]), strict=True):
        for f in verdict.findings:
            alike = (f.metric, *f.labels.items(), f.limit, f.required, f.status, f.reason)
            same.setdefault(alike, []).append((f, verdict, column))
    groups = (zip(*asked, strict=True) for asked in same.values())
    paths = [GatePath(findings[0], verdicts, place_of(run, findings[0]), heads) for findings, verdicts, heads in groups]
    return sorted(paths, key=lambda path: _rank(path.finding))


def _rank(finding: Finding) -> tuple[bool, int, float]:
    far = wording.closeness(finding)
    far = 0.0 if finding.status is Status.NO_DATA or math.isinf(far) else far
    return (not finding.required, _ORDER.index(finding.status), -far if finding.status is Status.FAIL else far)


def named(paths: Sequence[GatePath], name: str) -> list[GatePath]:
    """Those that are called so; else those whose name holds all of its words."""
    return [path for path in paths if name in path.names] or [path for path in paths if _words(name) <= path.words]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9.]+", text.lower()))


class Lineage:
    """What `bench explain` says of one run. ``folder`` holds its document; without it no raw output is looked at.

    ``signed``: a statement and a signature lie beside it.
    """

    def __init__(self, run: Run, folder: Path | None, trace: Trace | None = None, *, signed: bool = False) -> None:
        self.run, self.raw, self.trace, self.signed = run, RawOutput(folder), trace, signed

    def one(self, path: GatePath, others: Sequence[str] = ()) -> str:
        """The path of one gate; ``others``: what else could be asked, a line each."""
        return self._page([*self._gate(path), *self._made_by(path.verdicts), *(["", *others] if others else [])])

    def of_metric(self, metric: str) -> str:
        """The measurements of a metric that no gate names."""
        lines = [f"No gate names {clean(metric, 100)}."]
        for result in self.run.results:
            for m in result.measurements:
                if m.metric == metric:
                    lines += ["", *self._measured(result, m)]
        return self._page([*lines, *self._made_by(())])

    def of_probe(self, result: ProbeResult) -> str:
        """How a probe ended."""
        return self._page([*self._probe(result), *self._made_by(())])

    def whole(self) -> str:
        """Every gate, then every probe."""
        gates = [self._gate(path, brief=True) for path in gate_paths(self.run)]
        parts = [*gates, *map(self._probe, self.run.results)]
        return self._page([*(line for part in parts for line in (*part, "")), *self._made_by(self.run.verdicts)])

    # --- parts

    def _page(self, lines: Iterable[str]) -> str:
        """The lines below what heads them all, as text that ends with a newline."""
        return "\n".join(line.rstrip() for line in (*self._head(), "", *lines)) + "\n"

    def _head(self) -> Iterator[str]:
        run = self.run
        yield f"run {clean(run.id)} on {clean(run.node.hostname)}, {wording.when(run.started_at)}"
        if run.replay_of:
            yield f"replayed from {clean(run.replay_of)}"
        verdicts = ", ".join(f"{v.decision.value} {clean(v.profile)}" for v in run.verdicts)
        yield from fold(verdicts or "not judged", _WIDTH)

    def _gate(self, path: GatePath, brief: bool = False) -> Iterator[str]:
        """``brief``: the probe's warnings stand elsewhere."""
        f, far = path.finding, wording.margin(path.finding)
        yield f"{wording.STATUS[f.status]}: {path.name}"
        asked = ", ".join(clean(verdict.profile) for verdict in path.verdicts)
        yield from _row("asked by", f"{asked} ({'required' if f.required else 'optional: never decides'})")
        yield from _row("needed", needed(f))
        yield from _row("because", f.source)
        yield from _row("observed", _figure(f.observed, f.interval, f.metric) + (f", {far}" if far else ""))
        yield from _row("stand-in", f.stand_in or "")
        yield from _row("reason", f.reason or "")
        yield from _row("fix", "" if f.status is Status.PASS else f.remedy)
        deciding = self._deciding(f)
        for result, m in deciding:
            yield from self._measured(result, m, brief)
        if not deciding:
            yield from _row("measured", "nothing that carries these labels")
            yield from (line for result in self._silent(f) for line in self._ending(result, said=f.remedy))

    def _deciding(self, finding: Finding) -> list[tuple[ProbeResult, Measurement]]:
        """The measurements with the finding's number; all that match the gate where none has it."""
        every = ((result, m) for result in self.run.results for m in result.measurements if m.metric == finding.metric)
        matching = [(result, m) for result, m in every if finding.labels.items() <= m.labels.items()]
        return [(result, m) for result, m in matching if m.value == finding.observed] or matching

    def _silent(self, finding: Finding) -> list[ProbeResult]:
        """The probe that should have measured it, where its own reason is the gate's."""
        reason = wording.reason_text(finding.reason)
        return [r for r in self.run.results if (why := wording.reason_text(r.reason)) and why in reason]

    def _measured(self, result: ProbeResult, m: Measurement, brief: bool = False) -> Iterator[str]:
        yield from _row("measured", f"{_series(m.metric, m.labels)} = {m.value!r}")
        repeats = ", ".join(f"{value:.6g}" for value in m.repeats[:_MOST_REPEATS])
        more = f" and {len(m.repeats) - _MOST_REPEATS} more" if len(m.repeats) > _MOST_REPEATS else ""
        how = f"; repeats {repeats}{more}" if repeats else ""
        what = f"{_figure(m.value, m.interval, m.metric)}, {wording.plural(m.samples, 'sample')}{how}"
        yield from _row("", f"by the probe {result.probe}: {what}")
        yield from _row("doubt", m.invalid or "")
        for warning in () if brief else result.warnings[:_MOST_WARNINGS]:
            yield from _row("warning", warning)
        lines = list(self.trace(result, m)) if self.trace else []
        calls = [call for call in self.raw.calls(result) if not lines or call.file in {one.file for one in lines}]
        texts = [self._line(result, one) for one in lines] or [self._place(call.file) for call in calls[:_MOST_CALLS]]
        for number, text in enumerate(texts):
            yield f"  {'' if number else 'raw output':<{_INDENT - 2}}{text}"
        if len(lines) >= MOST_LINES:
            yield from _row("", "and perhaps others")
        for call in (call for call in calls[:_MOST_CALLS] if call.argv):
            yield from self._command(call)
        for source in result.sources:
            yield from _source(source)
        if len(calls) > _MOST_CALLS:
            yield from _row("", f"and {len(calls) - _MOST_CALLS} more of the probe {result.probe}")

    def _line(self, result: ProbeResult, found: Lines) -> str:
        place = f"{found.first}" if found.first == found.last else f"{found.first}-{found.last}"
        states = [self.raw.state(item) for item in result.evidence if item.path == found.file]
        doubt = "" if states == ["unchanged"] else f" {', '.join(states) or 'is not among the evidence of the run'}"
        return f"{self._place(found.file)}:{place}{doubt}\n{'':<{_INDENT + 2}}{clean(found.text, _MOST_TEXT)}"

    def _place(self, file: str) -> str:
        return clean(file if self.raw.folder is None else f"{self.raw.folder}/{file}")

    def _command(self, call: Call) -> Iterator[str]:
        yield from _row("command", f"{call.name}: status {call.returncode}, {call.seconds:.1f} s")
        yield f"  {'':<{_INDENT - 2}}  {shlex.join(clean(word) for word in call.argv)}"
        yield from _row("", call.error or "")

    def _ending(self, result: ProbeResult, said: str = "") -> Iterator[str]:
        why = f", {wording.reason_text(result.reason)}" if result.reason else ""
        ended = f"{result.probe}: {wording.OUTCOME[result.outcome]}, {result.duration_seconds:.1f} s{why}"
        yield from _row("probe", ended)
        yield from _row("fix", "" if result.remedy == said else result.remedy or "")
        for call in [call for call in self.raw.calls(result) if call.error or call.returncode][-_MOST_CALLS:]:
            yield from self._command(call)
            yield from _row("said", call.stderr.strip()[-400:])

    def _probe(self, result: ProbeResult) -> Iterator[str]:
        yield from self._ending(result)
        for warning in result.warnings:
            yield from _row("warning", warning)
        for why, number in Counter(m.invalid for m in result.measurements if m.invalid).items():
            yield from _row("doubt", f"{wording.plural(number, 'measurement')}: {why}")
        states: dict[str, list[str]] = {}
        for item in result.evidence:
            states.setdefault(self.raw.state(item), []).append(item.path)
        for state, files in states.items():
            shown = clean(files[0]) if len(files) == 1 else f"{len(files)} files, {clean(files[0])} the first"
            yield from _row("raw output", f"{state}: {shown}")

    def _made_by(self, verdicts: Sequence[Verdict]) -> Iterator[str]:
        """Versions, and the sha256 of the product and the profiles; whether all of it is signed."""
        yield from self._versions()
        for source in self.run.sources:
            yield from _source(source)
        for verdict in verdicts:
            yield from _row("profile", f"{verdict.profile} {verdict.digest}")
        if self.signed:
            yield from _row("signed", f"who did says: bench verify {self.run.id} --allowed-signers FILE")

    def _versions(self) -> Iterator[str]:
        facts = self.run.node.facts
        known: dict[str, object] = {name: facts.get(name) for name in ("os", "kernel", "architecture", "nvidia_driver")}
        versions = facts.get("versions")
        known |= versions if isinstance(versions, dict) else {}
        shown = [f"{name} {value}" for name, value in known.items()
                 if isinstance(value, str | int | float) and name != "bench"]  # fmt: skip
        own = [f"aiready-bench {self.run.bench_version}"] if self.run.bench_version else []
        yield from _row("versions", ", ".join(clean(text, 260) for text in [*own, *shown]))


def _figure(observed: float | None, interval: tuple[float, float] | None, metric: str) -> str:
    """``24.9 % (12.6 to 37.2)``, as the screen has it."""
    if observed is None:
        return "not measured"
    value, around = figure(observed, interval, metric)
    return f"{value} ({around})" if around else value


def _row(name: str, text: str) -> Iterator[str]:
    """The text beside its name, folded; nothing for no text."""
    if text := clean(text):
        first, *rest = fold(text, _WIDTH - _INDENT)
        yield f"  {name:<{_INDENT - 2}}{first}"
        yield from (" " * _INDENT + line for line in rest)


def _source(source: Source) -> Iterator[str]:
    yield from _row(source.kind, f"{source.name} {source.sha256}")


def _series(metric: str, labels: Mapping[str, str]) -> str:
    inside = ", ".join(f'{key}="{clean(value)}"' for key, value in labels.items())
    return f"{metric}{{{inside}}}" if inside else metric


def explain(run: Run, folder: Path | None = None, *, signed: bool = False) -> str:
    """Every gate's path as text that ends with a newline, without the search for lines."""
    return Lineage(run, folder, signed=signed).whole()
