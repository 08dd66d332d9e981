"""Request x probes -> Run. Every exception becomes an outcome; what was finished is kept whatever comes after.

Probes measure one after another, light before heavy, each bounded, with a pause between them until the node is calm,
so that no probe measures its predecessor's wake. Watchers observe the whole of it.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from bench import __version__
from bench.judge.baseline.series import key_of
from bench.judge.composition import composed
from bench.judge.pooling import LOOKS, pooled
from bench.measure.probe import Context, Failed, Interrupted, Probe, ProbeError, Progress
from bench.measure.processes import adopt_orphans
from bench.measure.procfs import cpu_ticks
from bench.measure.quiet import contended, marked
from bench.measure.recording import LiveTools, Recorder, Recording, ReplayTools
from bench.measure.tools import Signals
from bench.measure.watchers import Observers, Watching, from_lines, to_lines
from bench.measure.workspace import workspace
from bench.model import Code, Effort, Evidence, Measurement, Node, Outcome, ProbeResult, Request, Run, Series, Source

_GRACE_FACTOR, _GRACE_SECONDS = 2.0, 30.0
_SETTLE_SECONDS = {Effort.QUICK: 1.0, Effort.STANDARD: 3.0, Effort.THOROUGH: 15.0}
_SETTLE_WINDOW = 0.25
_CALM_CPU_RATIO = 0.3
SAMPLES = "samples"


def now() -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run to be made, from now on. ``evidence`` is the folder for raw output; ``listen`` is told of progress.

    ``not_asked_for``: why each other probe is left out, by its name. ``wait`` waits for quiet and says what others keep
    busy all the same; it is asked when nothing stopped the run before.
    ``again`` names the probes that another round may help: they are measured once more and pooled, `LOOKS` times in all
    and as long as one ends within ``repeat_seconds`` of the start. ``look`` says what others keep busy before such a
    round. ``max_seconds`` bounds the whole run. ``sources`` are what it is measured by.
    """

    id: str
    request: Request
    probes: Sequence[Probe]
    node: Node
    evidence: Path
    not_asked_for: Mapping[str, str] = field(default_factory=dict)
    wait: Callable[[], tuple[str, ...]] = lambda: ()
    replay: Recording | None = None
    replay_of: str | None = None
    listen: Callable[[Progress], None] = lambda _: None
    again: Callable[[Run], Sequence[str]] = lambda _: ()
    look: Callable[[], tuple[str, ...]] = lambda: ()
    max_seconds: float = float("inf")
    repeat_seconds: float = float("inf")
    signals: Signals = field(default_factory=Signals)
    sources: tuple[Source, ...] = ()
    started_at: str = field(default_factory=now)
    started: float = field(default_factory=time.monotonic)

    @property
    def cards(self) -> int:
        """How many GPUs the node has, as far as its facts tell."""
        return len(self.node.facts.get("gpus") or ())


def execute(plan: RunPlan) -> Run:
    """Measure. Never raises for a probe's fault; an interrupt ends the run early with ``interrupted_by`` set."""
    adopt_orphans()
    with plan.signals as signals:
        results = _Runner(plan, signals).measure_all()
    results += [
        ProbeResult(probe=name, outcome=Outcome.SKIPPED, reason=f"{Code.NOT_ASKED_FOR}: {why}")
        for name, why in plan.not_asked_for.items()
    ]
    return composed(_document(plan, results, signals.caught))


def _document(plan: RunPlan, results: Sequence[ProbeResult], caught: int | None = None) -> Run:
    return Run(
        id=plan.id,
        started_at=plan.started_at,
        finished_at=now(),
        bench_version=__version__,
        replay_of=plan.replay_of,
        interrupted_by=caught,
        node=plan.node,
        request=plan.request,
        sources=plan.sources,
        results=tuple(results),
    )


class _Runner:
    def __init__(self, plan: RunPlan, signals: Signals) -> None:
        self.plan = plan
        self.signals = signals
        self.recorder = Recorder(plan.evidence)
        self.observers = Observers([])
        self.stopped = ""

    def measure_all(self) -> list[ProbeResult]:
        watchers = [p for p in self.plan.probes if p.watch]
        measuring = sorted((p for p in self.plan.probes if p.measure), key=lambda p: p.order)
        opened, refused = self._open_watchers(watchers)
        self.observers = Observers(opened)
        self.observers.start()
        try:
            first = [probe for probe in measuring if probe.stops]
            checked = [self._turn(probe, settle=False) for probe in first]
            self.stopped = next(filter(None, map(_stop, first, checked)), "")
            busy = () if self.stopped else self.plan.wait()
            others = [probe for probe in measuring if not probe.stops]
            results = self._repeated(others, [self._turn(p, at > 0, busy) for at, p in enumerate(others)])
        finally:
            self.observers.stop()
        watched = [self._result(w.probe, partial(self._parse, w)) for w in opened]
        replayed = [self._result(p, partial(self._replayed, p)) for p in watchers if self.plan.replay]
        return [*checked, *results, *refused, *watched, *replayed]

    # --- measuring probes

    def _turn(self, probe: Probe, settle: bool, busy: tuple[str, ...] = ()) -> ProbeResult:
        if self.signals.caught is not None:
            return self._skipped(probe, self._interruption())
        if self.stopped:
            return self._skipped(probe, self.stopped)
        assert probe.measure is not None
        if settle and self.plan.replay is None:
            self.plan.listen(Progress(probe.name, "waiting for the node to calm down"))
            self._settle()
        self.plan.listen(Progress(probe.name, "starts", 0.0))
        result = self._result(probe, probe.measure)
        return self._ended(result if probe.guards_itself else marked(result, busy))

    def _repeated(self, probes: Sequence[Probe], results: list[ProbeResult]) -> list[ProbeResult]:
        """Measure again what another round may help, each probe as long as one more of it fits into the time."""
        rounds = [[result] for result in results]
        for _ in range(LOOKS - 1):
            wanted = set(self.plan.again(_document(self.plan, results)))
            chosen = [i for i, one in enumerate(probes) if one.name in wanted and self._fits(one, rounds[i])]
            if not chosen or self.signals.caught is not None:
                break
            for i in chosen:
                rounds[i].append(self._once_more(probes[i]))
                results[i] = _pooled(probes[i], rounds[i], self.recorder.evidence(probes[i].name))
        return results

    def _once_more(self, probe: Probe) -> ProbeResult:
        """Another round, unless others are busy again, which would void it."""
        busy = () if probe.guards_itself or self.plan.replay is not None else self.plan.look()
        return self._skipped(probe, contended(busy)) if busy else self._turn(probe, settle=True)

    def _fits(self, probe: Probe, rounds: Sequence[ProbeResult]) -> bool:
        if self.plan.replay is not None:
            return self.plan.replay.holds(probe.name)
        request, spent = self.plan.request, time.monotonic() - self.plan.started
        whole = [one.duration_seconds for one in rounds if one.outcome is Outcome.OK]
        longest = max(whole, default=probe.time(request, self.plan.cards))
        return spent + (longest * 1.05 + _SETTLE_SECONDS[request.effort]) <= self.plan.repeat_seconds

    def _skipped(self, probe: Probe, reason: str) -> ProbeResult:
        return self._ended(ProbeResult(probe=probe.name, outcome=Outcome.SKIPPED, reason=reason))

    def _ended(self, result: ProbeResult) -> ProbeResult:
        self.plan.listen(Progress(result.probe, result.outcome.value, 1.0, result))
        return result

    def _interruption(self) -> str:
        return f"{Code.INTERRUPTED}: {signal.Signals(self.signals.caught or signal.SIGINT).name}"

    def _settle(self) -> None:
        end = time.monotonic() + _SETTLE_SECONDS[self.plan.request.effort]
        while time.monotonic() < end and self.signals.caught is None:
            before = cpu_ticks()
            time.sleep(_SETTLE_WINDOW)
            after = cpu_ticks()
            if after.busy - before.busy < _CALM_CPU_RATIO * max(after.total - before.total, 1):
                return

    def _context(self, probe: Probe) -> Context:
        seconds = probe.time(self.plan.request, self.plan.cards)
        latest = self.plan.started + self.plan.max_seconds
        limit = min(time.monotonic() + seconds * _GRACE_FACTOR + _GRACE_SECONDS, latest)
        live = LiveTools(probe.name, self.recorder, limit, self.signals)
        replayed = self.plan.replay and ReplayTools(probe.name, self.plan.replay, self.recorder)
        return Context(
            probe=probe,
            request=self.plan.request,
            tools=replayed or live,
            seconds=seconds,
            remaining=lambda: limit - time.monotonic(),
            workspace=lambda at, need: nullcontext(at) if replayed else workspace(at, need, self.plan.id),
            stage=(lambda _: nullcontext()) if replayed else self.observers.staged,
            progress=lambda text, fraction: self.plan.listen(Progress(probe.name, text, fraction)),
            watched_since=self.observers.started,
        )

    def _result(self, probe: Probe, measure: Callable[[Context], Sequence[Measurement]]) -> ProbeResult:
        context = self._context(probe)
        started = time.monotonic()
        measurements: Sequence[Measurement] = ()
        ending: dict[str, Any] = {"outcome": Outcome.OK}
        try:
            with context.stage(probe.name):
                measurements = list(measure(context))
            if not measurements:
                raise Failed(Code.EMPTY, "the probe ended without a measurement")
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the other probes' work must not be lost
            ending = self._ending(error)
        return ProbeResult(
            probe=probe.name,
            duration_seconds=max(0.0, time.monotonic() - started),
            evidence=self.recorder.evidence(probe.name),
            measurements=tuple(measurements),
            series=tuple(context.series) if ending["outcome"] is Outcome.OK else (),
            warnings=tuple(context.warnings),
            sources=tuple(context.sources),
            **ending,
        )

    def _ending(self, error: BaseException) -> dict[str, Any]:
        """How a probe ended that raised: ``outcome``, ``reason`` and ``remedy``."""
        if isinstance(error, ProbeError):
            return {"outcome": error.outcome, "reason": error.reason, "remedy": error.remedy}
        interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
        return {"outcome": Outcome.FAILED, "reason": self._interruption() if interrupted else _fault(error)}

    # --- watchers

    def _open_watchers(self, probes: Sequence[Probe]) -> tuple[list[Watching], list[ProbeResult]]:
        opened: list[Watching] = []
        refused: list[ProbeResult] = []
        for probe in probes if self.plan.replay is None else ():
            assert probe.watch is not None
            try:
                opened.append(Watching(probe, probe.watch(self._context(probe))))
            except Exception as error:  # noqa: BLE001 - as above
                refused.append(ProbeResult(probe=probe.name, **self._ending(error)))
        return opened, refused

    def _parse(self, watching: Watching, context: Context) -> Sequence[Measurement]:
        assert watching.probe.parse is not None
        LiveTools(watching.probe.name, self.recorder).record(SAMPLES, to_lines(watching.samples))
        if watching.error is not None:
            if not watching.samples:
                raise watching.error
            context.warn(f"ended early: {watching.error.reason}")
        return watching.probe.parse(watching.samples, context)

    def _replayed(self, probe: Probe, context: Context) -> Sequence[Measurement]:
        assert probe.parse is not None
        return probe.parse(from_lines(context.tools.record(SAMPLES, "")), context)


def _stop(probe: Probe, result: ProbeResult) -> str:
    """Why the run ends with this probe; empty where it goes on."""
    why = probe.stops and probe.stops(result.measurements)
    return f"{Code.NOT_AS_EXPECTED}: {why}" if why else ""


def _fault(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Code.INTERNAL}: {type(error).__name__}: {str(error)[:500]} ({Path(where.filename).name}:{where.lineno})"


def _following(rounds: Sequence[ProbeResult]) -> list[Series]:
    """The time lines of the first round, and of the others those that go on after them: they are on the run's clock."""
    found = list(rounds[0].series)
    for series in chain.from_iterable(one.series for one in rounds[1:]):
        ends = [s.seconds[-1:] for s in found if (s.metric, s.labels) == (series.metric, series.labels)]
        found += [series] if ends and series.seconds[:1] > max(ends) else []
    return found


def _pooled(probe: Probe, rounds: Sequence[ProbeResult], evidence: Sequence[Evidence]) -> ProbeResult:
    """All rounds of one probe as one result. The last that failed beside a good one is a warning, no more."""
    good = [one for one in rounds if one.outcome is Outcome.OK]
    seconds = sum(one.duration_seconds for one in rounds)
    changed: dict[str, Any] = {"duration_seconds": seconds, "evidence": tuple(evidence)}
    if not good:
        return rounds[0].model_copy(update=changed)
    found, named = [one.measurements for one in good], {metric.name: metric for metric in probe.metrics}
    measurements = probe.pool(found) if probe.pool else pooled(found, lambda m: key_of(m, named.get(m.metric)))
    warnings = [text for one in good for text in one.warnings]
    warnings += [f"another round was {one.outcome.value}: {one.reason}" for one in rounds if one not in good][-1:]
    changed |= {
        "measurements": tuple(measurements),
        "warnings": tuple(dict.fromkeys(warnings)),
        "series": tuple(_following(good)),
    }
    return good[0].model_copy(update=changed)
