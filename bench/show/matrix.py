"""A run as one matrix: profiles across, gates down, each gate once. Pure; the screen and the page draw the same.

Beside it what heads it, what decided each profile, a sentence on starvation, one on what the accelerator did, the next
commands, and what was not measured, each cause once. Texts are clean, and plain ASCII but for units and foreign names.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import NamedTuple

from bench.judge.gate import margin
from bench.judge.hardware import accelerators
from bench.judge.latency_budget import BUDGET_SECONDS, PART, way_words
from bench.measure.probe import Probe
from bench.model import Attribution, Code, Decision, Finding, Measurement, Outcome, Run, Status, code_of
from bench.show import wording
from bench.show.absent import GPU, PEER, Absent
from bench.show.names import HEADROOMS, columns, duration, figure, gate_name, needed
from bench.show.steps import next_steps
from bench.show.text import clean
from bench.units import human


class Mark(StrEnum):
    """What a gate means to a profile, in one word."""

    PASS = "ok"
    FAIL = "FAIL"
    OPEN = "?"  # undecided, or not measured although it could have been
    ABSENT = "-"  # needs what this node has not, or does not ask this node


class Cell(NamedTuple):
    mark: Mark
    required: bool

    def __str__(self) -> str:
        return self.mark.value if self.required else f"({self.mark.value})"


class Row(NamedTuple):
    """One gate. ``measured`` names what stood in; ``interval`` is empty where it is one point, or does not count.

    ``cells`` has one for each profile, None where it does not ask. ``cause``: why there is no figure.
    """

    name: str
    measured: str
    interval: str
    needed: str
    cells: tuple[Cell | None, ...]
    finding: Finding
    cause: str = ""

    @property
    def rank(self) -> int:
        """To sort by: failing, undecided, passing, without a figure; of each the required ones first."""
        order = (Mark.FAIL, Mark.OPEN, Mark.PASS, Mark.ABSENT)
        ranks = (2 * order.index(cell.mark) + (not cell.required) for cell in self.cells if cell)
        return 2 * len(order) if self.cause else min(ranks)


class Answer(NamedTuple):
    """A profile's line: its decision, what decided it, and ``more`` where there is room. ``column`` heads its marks."""

    profile: str
    column: str
    decision: Decision
    because: str
    more: tuple[str, ...] = ()


class Missing(NamedTuple):
    """What was not measured for one cause: gates and probes by name, and what mends it, if that is known."""

    cause: str
    names: tuple[str, ...]
    mend: str = ""


_LARGEST = 1e300
_DOUBTS = (Code.INVALID, Code.STALE, Code.SUSPECT, Code.REGRESSED, Code.MISSING, Code.WARMING, Code.UNDETECTABLE)
#: The labels that say where the worst of several was.
_PLACES = {"path": "{}", "peer": "{}", "device": "GPU {}", "port": "{}", "host": "{}", "service": "{}", "data": "{}"}


class Matrix:
    """All that is shown of a run. ``probes`` know what to run again and how long it takes: without them no ``steps``.

    ``head``: lines of phrases, each of which stays whole. ``proved``: what a GO still cannot rule out.
    ``notes``: doubts of the probes.
    """

    def __init__(self, run: Run, probes: Sequence[Probe] = ()) -> None:
        self.run, self.absent = run, Absent(run, probes)
        self.head = self._head()
        self.answers = tuple(self._answers())
        self.rows = self._rows()
        self.starvation = self._starvation()
        self.accelerator = accelerator(run)
        self.answer = answer(run)
        self.proved = tuple(dict.fromkeys(text for verdict in run.verdicts for text in wording.proved(run, verdict)))
        self.steps = next_steps(self.absent)
        self.missing = self._missing()
        self.notes = tuple(dict.fromkeys(wording.doubts(run)))

    def _head(self) -> tuple[tuple[str, ...], ...]:
        run, began, ended = self.run, wording.moment(self.run.started_at), wording.moment(self.run.finished_at)
        took = f", {duration((ended - began).total_seconds())}" if began and ended and ended > began else ""
        first = (
            clean(run.node.hostname, 60), wording.when(run.started_at), f"{run.request.effort.value}{took}",
            f"run {clean(run.id, 40)}",
        )  # fmt: skip
        lines = [first, (self._accelerators(), *self._paths(), *self._peers())]
        if run.replay_of:
            lines.append((f"replayed from {clean(run.replay_of, 60)}: nothing was measured now",))
        if run.interrupted_by is not None:
            number = run.interrupted_by  # a stored run may hold any
            name = next((one.name for one in signal.Signals if one == number), f"signal {number}")
            lines.append((f"interrupted by {name}: what was finished is shown",))
        return tuple(lines)

    def _accelerators(self) -> str:
        found = wording.gpus(self.run) or [
            clean(m.labels.get("name", "GPU"), 60) for m in self.run.find("accelerator_info")
        ]
        named = ", ".join(f"{found.count(name)} x {name}" for name in dict.fromkeys(found)) or "no GPU"
        asked = clean(self.run.request.accelerator, 60)
        if asked.startswith("emulated"):
            return f"{asked} in place of {named if found else GPU}"
        return f"{named}: the CPU stood in" if "cpu" in wording.stand_ins(self.run) else named

    def _paths(self) -> Iterator[str]:
        mounts = self.run.node.facts.get("mounts")
        for path in self.run.request.storage:
            mount = mounts.get(path) if isinstance(mounts, dict) else None
            kind = mount if isinstance(mount, dict) else {}
            on = f": {kind['fstype']} on {str(kind.get('source')).removeprefix('/dev/')}" if kind.get("fstype") else ""
            yield clean(path + on, 100)

    def _peers(self) -> Iterator[str]:
        for peer in self.run.request.peers:
            yield f"peer {clean(peer, 60)}"
        if not self.run.request.peers:
            yield "no peer: the loopback stood in" if "loopback" in wording.stand_ins(self.run) else "no peer"

    def _rows(self) -> tuple[Row, ...]:
        """Each gate once: those that ask for the same figure and limit are one, whichever profiles ask."""
        same: dict[object, list[tuple[int, Finding]]] = {}
        for at, verdict in enumerate(self.run.verdicts):
            for finding in verdict.findings:
                key = (finding.metric, *sorted(finding.labels.items()), finding.limit.min, finding.limit.max)
                same.setdefault(key, []).append((at, finding))
        made = (self._row(gates) for gates in same.values())
        return tuple(sorted(made, key=lambda row: row.rank))

    def _row(self, gates: Sequence[tuple[int, Finding]]) -> Row:
        cells: list[Cell | None] = [None] * len(self.run.verdicts)
        for at, finding in gates:
            if cells[at] is None or finding.required:
                cells[at] = Cell(self.mark(finding), finding.required)
        shown = min((f for _, f in gates), key=lambda f: (f.observed is None, f.status is Status.NO_DATA))
        name, place = gate_name(shown.metric, shown.labels), place_of(self.run, shown)
        measured, interval = self._measured(shown)
        return Row(
            name=f"{name}, {place}" if place else name,
            measured=measured,
            interval=interval,
            needed=needed(shown),
            cells=tuple(cells),
            finding=shown,
            cause=self.absent.cause(shown) if shown.observed is None else "",
        )

    def mark(self, finding: Finding) -> Mark:
        if finding.status is Status.PASS:
            return Mark.PASS
        if finding.status is Status.FAIL:
            return Mark.FAIL
        hardware = finding.status is Status.NO_DATA and self.absent.needs(finding) is not None
        return Mark.ABSENT if hardware or not wording.asked(finding) else Mark.OPEN

    def _measured(self, finding: Finding) -> tuple[str, str]:
        """The figure with what stood in, and its interval where it counts."""
        if finding.observed is None:
            return (Mark.ABSENT.value if self.mark(finding) is Mark.ABSENT else "not measured"), ""
        counts = finding.status is not Status.NO_DATA
        value, interval = figure(finding.observed, finding.interval if counts else None, finding.metric)
        return f"{value} {clean(finding.stand_in or '', 20)}".rstrip() + _doubted(finding), interval

    def _missing(self) -> tuple[Missing, ...]:
        """Each gate without a figure and each probe that did not end well, once, by cause."""
        same: dict[str, list[str]] = {}
        mends: dict[str, str] = {}
        owners = set()
        for row in self.rows:
            if row.cause:
                same.setdefault(row.cause, []).append(row.name)
                owners.add(self.absent.owners.get(row.finding.metric))
        for result in self.run.results:
            left_out = result.outcome is Outcome.OK or code_of(result.reason) is Code.NOT_ASKED_FOR
            cause = "" if left_out else self.absent.why(result.outcome, result.reason)
            if cause and (result.probe not in owners or cause not in same):
                same.setdefault(cause, []).append(result.probe)
            if cause and not cause.startswith("needs "):
                mends.setdefault(cause, clean(result.remedy or ""))
        stood_in = [self.absent.needs(row.finding) for row in self.rows if not row.cause]
        for need in (GPU, PEER):
            if above := stood_in.count(need):
                names = same.setdefault(f"needs {self.absent.words(need)}", [])
                names.insert(0, f"{wording.plural(above, 'gate')} marked - above")
        return tuple(Missing(cause, tuple(dict.fromkeys(names)), mends.get(cause, "")) for cause, names in same.items())

    def _answers(self) -> Iterator[Answer]:
        names = [verdict.profile for verdict in self.run.verdicts]
        for verdict, column in zip(self.run.verdicts, columns(names), strict=True):
            required = [f for f in verdict.findings if f.required]
            because, more = self._because(required)
            if verdict.required is not None and verdict.measured:
                more = (*more, wording.shown_of(verdict))
            yield Answer(clean(verdict.profile, 60), column, verdict.decision, because, more)

    def _because(self, gates: Sequence[Finding]) -> tuple[str, tuple[str, ...]]:
        """``1 of 12 gates fails: waiting for storage 71 %``, ``7 of 9 pass, 2 not measured``; and what else."""
        of = {status: [f for f in gates if f.status is status] for status in Status}
        if not gates:
            return "no gate decides", ()
        failed, passed, number = of[Status.FAIL], of[Status.PASS], len(gates)
        undecided = [f"{len(of[Status.UNDECIDED])} undecided"] if of[Status.UNDECIDED] else []
        rest = [*undecided, *self._absent(of[Status.NO_DATA])]
        if failed:
            fail = "fail" if len(failed) > 1 else "fails"
            more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
            return f"{len(failed)} of {number} gates {fail}: {self.phrase(min(failed, key=_broken))}{more}", tuple(rest)
        return ", ".join([f"{len(passed)} of {number} pass", *rest]), tuple(_closest(passed))

    def phrase(self, finding: Finding) -> str:
        if finding.metric in HEADROOMS and finding.observed is not None and finding.limit.min:
            number = accelerators(self.run) or 1
            enough = math.floor(10.0 * max(0.0, finding.observed) * number / finding.limit.min) / 10.0
            return f"{HEADROOMS[finding.metric]} {enough:g} of {wording.plural(number, 'accelerator')}"
        value = "" if finding.observed is None else figure(finding.observed, None, finding.metric)[0]
        return f"{gate_name(finding.metric, finding.labels)} {value}".rstrip() + _doubted(finding)

    def _absent(self, gates: Sequence[Finding]) -> Iterator[str]:
        needs = [self.absent.needs(finding) for finding in gates]
        for need in (GPU, PEER):
            if number := needs.count(need):
                yield f"{number} {'needs' if number == 1 else 'need'} {self.absent.words(need)}"
        if number := needs.count(None):
            yield f"{number} not measured"

    def _starvation(self) -> str:
        """The first sentence of the attribution, and whether it counts; before it what all of the cards would need.

        Empty where nothing was measured of it: its gates say why.
        """
        found = self.run.attribution
        if found is None or found.starvation_ratio is None:
            return ""
        sentence = clean(found.explanation)
        end = sentence.find(". ")
        first = sentence if end < 0 else sentence[: end + 1]
        counts = found.valid or found.bottleneck == "undetermined"
        if not counts:
            return f"Does not count: {first}"
        together = self._of_all(found)
        return f"{together} Fed alone, {first[:1].lower()}{first[1:]}" if together else first

    def _of_all(self, found: Attribution) -> str:
        """What all accelerators of the node need of the path that one was fed from; empty where one is all."""
        number, unit = accelerators(self.run) or 1, "bytes_per_second"
        demand, supply = found.demand_bytes_per_second, found.supply_bytes_per_second
        if number == 1 or not found.valid or demand is None or supply is None:
            return ""
        need, gets = human(min(number * demand, _LARGEST), unit, 2), human(supply, unit, 2)
        only = "only " if supply < number * demand else ""
        return f"All {number} accelerators need {need}, and {clean(found.path or 'storage', 60)} delivers {only}{gets}."


def place_of(run: Run, finding: Finding) -> str:
    """Where the worst of several was; empty where all are the same, or there is one."""
    if finding.observed is None:
        return ""
    found = run.find(finding.metric, **finding.labels)
    same = (m for m in found if m.value == finding.observed)
    worst = min(same, key=lambda m: m.invalid is not None, default=None)  # of equals one that decides
    if worst is None or len({m.value for m in found}) == 1:
        return ""
    differ = [key for key in _PLACES if len({m.labels.get(key) for m in found}) > 1 and worst.labels.get(key)]
    return ", ".join(_PLACES[key].format(clean(worst.labels[key], 60)) for key in differ)


def _doubted(finding: Finding) -> str:
    """``, regressed``: the word for what a figure and its limit alone do not show."""
    code = code_of(finding.reason)
    return f", {code.value}" if code in _DOUBTS else ""


def _closest(passed: Sequence[Finding]) -> Iterator[str]:
    known = [finding for finding in passed if wording.margin(finding)]
    if known:
        closest = min(known, key=wording.closeness)
        far = wording.margin(closest).removesuffix(" spare")
        yield f"closest: {gate_name(closest.metric, closest.labels)}, {far} to spare"


def _broken(finding: Finding) -> float:
    """By how much a limit is broken, to sort by: a limit of nothing, which has no share, is broken the most."""
    found = margin(finding)
    return -math.inf if found is None else found


_BUSY, _DRIVER = "accelerator_busy_ratio", "accelerator_utilization_ratio"


def accelerator(run: Run) -> str:
    """What the silicon did, what the driver says, and what it waited for; empty where none of it was measured.

    Of several cards the one that did least. A CPU that stands in is no accelerator, and nothing is said of it.
    """
    serve, fed = _least(run, _BUSY, stage="serve"), _least(run, _BUSY, stage="feed.storage")
    driver = _least(run, _DRIVER, stage="inference.serve", source="nvml")
    decode = _least(run, "inference_bandwidth_utilization_ratio", stage="decode")
    prefill = _least(run, "inference_flops_utilization_ratio", stage="prefill")
    parts = []
    if serve:
        said = f" (the driver says {_percent(driver)})" if driver else ""
        parts.append(f"serving, it computed {_percent(serve)} of the time{said}")
    if decode or prefill:
        used = [f"{_percent(decode)} of the memory's speed"] if decode else []
        used += [f"{_percent(prefill)} of the arithmetic"] if prefill else []
        parts.append(f"it reached {' and '.join(used)}")
    if fed:
        idle = max(0.0, 1.0 - fed.value)
        wait = f" and waited {human(idle, _BUSY, 2)}" if idle >= 0.0005 else ""
        path = fed.labels.get("path")
        at = f"fed from {clean(PurePath(path).as_posix(), 60)}" if path else "fed from storage"
        parts.append(f"{at}, it computed {_percent(fed)}{wait}")
    stood = sorted({m.stand_in for m in (serve, decode, prefill, fed) if m and m.stand_in})
    who = f"In place of the accelerator ({clean(', '.join(stood), 40)})" if stood else "The accelerator"
    return f"{who}: {'; '.join(parts)}." if parts else ""


def answer(run: Run) -> str:
    """What network and server take of an answer of a server on another host; empty where none was named."""
    p99 = {m.labels.get("part"): m for m in run.find(PART, statistic="p99")}
    network, server = p99.get("network"), p99.get("server")
    if network is None or server is None:
        return ""
    whole, *parts = (human(s, PART) for s in (network.value + server.value, network.value, server.value))
    url, doubt = clean(network.labels.get("endpoint", ""), 80), "Does not count: " if server.invalid else ""
    return (
        f"{doubt}An answer of {url} begins within {whole} (p99, of {human(BUDGET_SECONDS, PART)}): "
        f"the network takes {parts[0]} {way_words(network)}, the server {parts[1]}."
    )


def _least(run: Run, metric: str, **labels: str) -> Measurement | None:
    real = [m for m in run.find(metric, **labels) if m.stand_in != "cpu"]
    return min(real, key=lambda m: m.value, default=None)


def _percent(found: Measurement | None) -> str:
    return human(found.value, _BUSY, 2) if found else ""
