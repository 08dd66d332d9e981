"""Which lines of the raw output a figure stands on: its probe is replayed with a part of that output changed.

Where a change of the numbers in one line, by a millionth, changes the figure, the figure was read from this line. No
format of any tool is known here, so it holds for every probe; nothing is started and nothing is written.
"""

from __future__ import annotations

import difflib
import re
import shlex
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count

from bench.errors import UserError
from bench.judge.baseline.series import Key, key_of
from bench.judge.pooling import LOOKS, pooled
from bench.measure.probe import Completed, Context, Probe, ProbeError, Skipped
from bench.measure.recording import Recording, ReplayTools
from bench.measure.runner import SAMPLES
from bench.measure.watchers import from_lines
from bench.model import Code, Measurement, ProbeResult, Run
from bench.show.raw_output import Call, Lines, RawOutput
from bench.show.terminal.lineage import MOST_LINES, GatePath, Lineage, gate_paths, named
from bench.store.errors import UnusableRun
from bench.store.evidence import is_signed
from bench.store.runs import Store
from bench.workflows.catalog import Catalog, declared
from bench.workflows.judging import judged
from bench.workflows.site import find_run, path_of

_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w.])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w.])')
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
#: For one figure. The seconds bound what long output takes; 150 replays of a quick run take two to six.
_MOST_REPLAYS, _MOST_SECONDS = 150, 20.0
_MOST_OTHERS = 5

Change = Callable[[re.Match[str], int], str]


def _unevenly(number: re.Match[str], place: int) -> str:
    """More by the ``place``: quotients and differences, which one amount for all would leave, change."""
    return _more(number[1], 1 + place % 7)


def _evenly(number: re.Match[str], _: int) -> str:
    """What has to add up on a line still does."""
    return _more(number[1], 1)


def _listed(number: re.Match[str], place: int) -> str:
    """Those in lists alone: the named ones beside them count and number what the lists hold."""
    named = ":" in number.string[max(0, number.start() - 2) : number.start()]
    return number[0] if named else _unevenly(number, place)


def _set(number: re.Match[str], _: int) -> str:
    """1 in place of 0: what counts faults is 0 on a sound node."""
    return number[0] if float(number[1]) else "1"


def _ever_more(number: re.Match[str], place: int) -> str:
    """Counts alone, the later the more: one more in each bucket may leave a quantile where it was."""
    return str((2 + place) * int(number[1])) if number[1].isdigit() else number[0]


def _more(number: str, times: int) -> str:
    """So many millionths more, and of a whole number at least so many units; 0 stays."""
    if number.lstrip("-").isdigit():
        value = int(number)
        return str(value + times * max(1, abs(value) // 1_000_000)) if value else number
    return repr(float(number) * (1 + times * 1e-6))


_CHANGES: tuple[Change, ...] = (_unevenly, _evenly, _listed, _set, _ever_more)


class Tracer:
    """The lines behind a stored run's figures. ``raw`` reads its files."""

    def __init__(self, run: Run, raw: RawOutput, catalog: Catalog) -> None:
        self._run, self._raw = run, raw
        self._probes = {probe.name: probe for probe in catalog.probes}
        self._replays: dict[str, _Replays] = {}

    def __call__(self, result: ProbeResult, measurement: Measurement) -> list[Lines]:
        """The first few, in their files' order; none where a replay does not give the figure again."""
        probe = self._probes.get(result.probe)
        if probe is None:
            return []
        if probe.name not in self._replays:
            calls = self._raw.calls(result)
            texts = {call.file: _LINE.findall(self._raw.text(call.file)) for call in calls}
            self._replays[probe.name] = _Replays(self._run, probe, calls, texts)
        replays = self._replays[probe.name]
        key = replays.key(measurement)
        if replays.figures(None).get(key) != measurement.value:
            return []
        together: list[Lines] = []
        replays.left, replays.deadline = _MOST_REPLAYS, time.monotonic() + _MOST_SECONDS
        for change in _CHANGES:
            found = _lines_behind(replays, key, measurement.value, change)
            if found and all(lines.first == lines.last for lines in found):
                return found
            together = together or found
        return together


@dataclass(frozen=True, slots=True)
class _Part:
    """Some lines of one file of raw output, and how their numbers are changed."""

    file: str
    first: int
    last: int
    change: Change

    def changed(self, lines: Sequence[str]) -> list[str]:
        place = count()

        def changed(found: re.Match[str]) -> str:
            return self.change(found, next(place)) if found[1] else found[0]

        part = [_NUMBER.sub(changed, line) for line in lines[self.first : self.last]]
        return [*lines[: self.first], *part, *lines[self.last :]]


def _lines_behind(replays: _Replays, key: Key, value: float, change: Change) -> list[Lines]:
    """Halve what matters until single lines are left, or until neither half matters by itself, as with a median."""
    found: list[Lines] = []

    def search(file: str, first: int, last: int) -> None:
        if first >= last or replays.spent() or len(found) >= MOST_LINES:
            return
        changed = replays.figures(_Part(file, first, last, change)).get(key)
        if changed == value:
            return
        before = len(found)
        if last - first > 1:
            search(file, first, (first + last) // 2)
            search(file, (first + last) // 2, last)
        if changed is not None and len(found) == before:
            found.append(Lines(file, first + 1, last, replays.texts[file][first].strip()))

    for file, lines in replays.texts.items():
        search(file, 0, len(lines))
    return found


@dataclass(slots=True)
class _Replays:
    """What one probe makes of its recorded output, as it is or with one part of it changed.

    ``left`` and ``deadline`` (monotonic seconds) bound the search.
    """

    run: Run
    probe: Probe
    calls: list[Call]
    texts: Mapping[str, list[str]]
    left: int = 0
    deadline: float = 0.0
    _known: dict[_Part | None, Mapping[Key, float]] = field(default_factory=dict)

    def spent(self) -> bool:
        return self.left <= 0 or time.monotonic() > self.deadline

    def figures(self, part: _Part | None) -> Mapping[Key, float]:
        """Each series' value; nothing where the probe cannot make sense of it."""
        if part not in self._known:
            self.left -= 1
            try:
                measured = self._measured(_Recorded(self.calls, self.texts, part))
            except Exception:  # noqa: BLE001 - changed output may be no output of that tool any more
                measured = []
            self._known[part] = {self.key(m): m.value for m in measured}
        return self._known[part]

    def _measured(self, recording: _Recorded) -> list[Measurement]:
        context = Context(
            probe=self.probe, request=self.run.request, tools=ReplayTools(self.probe.name, recording),
            seconds=0.0, remaining=lambda: 1.0, workspace=lambda at, _: nullcontext(at), stage=lambda _: nullcontext(),
            progress=lambda *_: None,
        )  # fmt: skip
        if self.probe.measure is None:
            assert self.probe.parse is not None
            return list(self.probe.parse(from_lines(context.tools.record(SAMPLES, "")), context))
        rounds = [tuple(self.probe.measure(context))]
        for _ in range(LOOKS - 1):
            with suppress(ProbeError):
                rounds += [tuple(self.probe.measure(context))] if recording.holds(self.probe.name) else []
        if len(rounds) == 1:
            return list(rounds[0])
        return list(self.probe.pool(rounds) if self.probe.pool else pooled(rounds, self.key))

    def key(self, measurement: Measurement) -> Key:
        return key_of(measurement, next((m for m in self.probe.metrics if m.name == measurement.metric), None))


class _Recorded(Recording):
    """A recording in memory, with one part of it changed."""

    def __init__(self, calls: list[Call], texts: Mapping[str, list[str]], part: _Part | None) -> None:
        self._texts, self._part = texts, part
        self._left: dict[str, deque[Call]] = defaultdict(deque)
        for call in calls:
            self._left[call.name].append(call)

    def next(self, probe: str, name: str) -> tuple[Completed, str | None]:
        if not (left := self._left[name]):
            raise Skipped(Code.NOT_RECORDED, f"no further output {name!r} of {probe}")
        call = left.popleft()
        lines, part = self._texts[call.file], self._part
        if part is not None and part.file == call.file:
            lines = part.changed(lines)
        done = Completed(call.argv, call.returncode or 0, "".join(lines), call.stderr, call.seconds)
        return done, call.error

    def holds(self, probe: str) -> bool:
        return any(self._left.values())


def explained(store: Store, words: Sequence[str], *, every: bool, metric: str | None) -> str:
    """The path of the gate that was named, else of the one that decided; with ``every`` that of each.

    ``words``: a run, a gate, or both. Raises UserError, UnusableRun.
    """
    reference, name = _meant(store, words)
    found = find_run(store, reference)
    path = path_of(store, reference, found)
    run = judged(found, store)
    lineage = Lineage(run, path.parent, Tracer(run, RawOutput(path.parent), declared()), signed=is_signed(path))
    if every:
        return lineage.whole()
    paths, wanted = gate_paths(run), metric or name
    chosen = [p for p in paths if metric in (None, p.finding.metric)]
    chosen = chosen if wanted is None or metric else named(paths, wanted)
    if chosen:
        return lineage.one(chosen[0], _others(reference or run.id, chosen, paths))
    if wanted in {m.metric for m in run.measurements()}:
        return lineage.of_metric(str(wanted))
    if probe := next((result for result in run.results if result.probe == wanted), None):
        return lineage.of_probe(probe)
    raise UserError(f"run {run.id} has no gate {wanted!r}; {_nearest(str(wanted), paths)}")


def _meant(store: Store, words: Sequence[str]) -> tuple[str | None, str | None]:
    """The run and the gate among the words: the first names a run if one is called so."""
    if words:
        try:
            store.locate(words[0])
        except UnusableRun:
            return None, " ".join(words)
    return (words[0] if words else None), " ".join(words[1:]) or None


def _others(reference: str, chosen: Sequence[GatePath], paths: Sequence[GatePath]) -> list[str]:
    """The commands for what else was meant, and for all."""
    meant = chosen if len(chosen) < len(paths) else ()
    names = dict.fromkeys(path.name for path in meant if path.name != chosen[0].name)
    explain = f"bench explain {shlex.quote(reference)}"
    lines = [f"also: {explain} {shlex.quote(name)}" for name in list(names)[:_MOST_OTHERS]]
    return [*lines, f"all {len(paths)} gates: {explain} --all"]


def _nearest(wanted: str, paths: Sequence[GatePath]) -> str:
    names = dict.fromkeys(name for p in paths for name in (p.finding.metric, p.name, *(v.profile for v in p.verdicts)))
    firsts = {re.split("[_ ]", name)[0]: name for name in reversed(names)}
    near = difflib.get_close_matches(wanted, names, 2)
    near += [firsts[word] for word in difflib.get_close_matches(wanted, firsts, 2) if firsts[word] not in near]
    return f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(list(names)[:8])}, ..."
