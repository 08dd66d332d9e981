"""What to do next: commands to copy, with what each is for and about how long it takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from bench.judge.gate import ENDPOINT
from bench.measure.budget import WHOLE, WHOLE_WITH_PEER
from bench.measure.probe import Probe
from bench.model import Code, Effort, Finding, Request, Status, code_of
from bench.show.absent import GPU, PEER, Absent
from bench.show.names import duration, gate_name
from bench.show.text import clean, listed

MOST_STEPS = 5
#: Of what a server's presence left out.
_BESIDE = "decides {}, once, before the server starts: beside it nothing shows whether its cards wait for data"
#: What a figure of today is held against that no more samples of it can decide.
_NOT_BY_SAMPLES = (
    (Code.MISSING, "bench doctor", "looks for what the nights had; gone on purpose: bench baseline reset --reason WHY"),
    (Code.NOT_MEASURED, "bench doctor", "says why the accelerators cannot be counted"),
    (Code.UNDETECTABLE, "bench baseline show", "shows how large a drop may hide: the nights differ too much"),
)
_OTHERWISE = (Code.INVALID, Code.STALE, Code.SUSPECT, *(code for code, _, _ in _NOT_BY_SAMPLES))
#: What stands for a card that training could have, on a node without one.
_EMULATED = "emulated:unet3d-h100"


class Step(NamedTuple):
    """A command to copy, what it is for, and about how many seconds it takes (0: at once)."""

    command: str
    purpose: str
    seconds: float

    @property
    def told(self) -> str:
        return f"{self.purpose} ({duration(self.seconds)})" if self.seconds else self.purpose


def next_steps(absent: Absent) -> tuple[Step, ...]:
    """At most five, those that matter most first; none where no probe is known."""
    found = _Steps(absent).steps() if absent.probes else ()
    return tuple(dict.fromkeys(found))[:MOST_STEPS]


class _Steps:
    def __init__(self, absent: Absent) -> None:
        self.absent, self.run, self.probes, self.owners = absent, absent.run, absent.probes, absent.owners

    def steps(self) -> Iterator[Step]:
        """Mend what fails, repeat what is undecided, measure what was left out, and on what this node has not."""
        asked = [f for v in self.run.verdicts for f in v.findings if f.required and f.status is not Status.PASS]
        effort = self.run.request.effort
        for probe, gates in self._by_owner(f for f in asked if f.status is Status.FAIL):
            remedy = clean(gates[0].remedy)
            after = f", after this: {remedy}" if remedy else ""
            yield self.again([probe], effort, f"measures {_list(gates)} again{after}")
        undecided = [f for f in asked if f.status is Status.UNDECIDED]
        if any(code_of(f.reason) is Code.STALE for f in undecided):
            yield Step(self.command([], self.run.request), "measures all of it again", self._whole(effort))
        for probe, gates in self._by_owner(f for f in undecided if code_of(f.reason) is Code.SUSPECT):
            yield self.again([probe], effort, f"confirms or clears {_list(gates)}")  # another effort is another series
        for code, command, purpose in _NOT_BY_SAMPLES:
            if any(code_of(f.reason) is code for f in undecided):
                yield Step(command, purpose, 10.0)
        for probe, gates in self._by_owner(f for f in undecided if code_of(f.reason) not in _OTHERWISE):
            yield self.again([probe], Effort.THOROUGH, f"decides {_list(gates)}, by more samples")
        for probe, gates in self._by_owner(f for f in undecided if code_of(f.reason) is Code.INVALID):
            if self.probes[probe].once and self.probes[probe].guards_itself:
                continue  # no busy node is why, and it would say the same again
            yield self.again([probe], effort, f"measures {_list(gates)} on a quiet node", "--wait-quiet 10m")
        yield from self._left_out([f for f in asked if f.status is Status.NO_DATA and not self.absent.needs(f)])
        yield from self._absent_hardware({self.absent.needs(f) for f in asked if f.status is Status.NO_DATA})

    def _by_owner(self, gates: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
        same: dict[str, list[Finding]] = {}
        for finding in gates:
            if (owner := self.absent.owner(finding)) in self.probes:
                same.setdefault(str(owner), []).append(finding)
        return list(same.items())

    def _left_out(self, gates: Sequence[Finding]) -> Iterator[Step]:
        """What could be measured here and was not: left out or interrupted, out of this effort's reach, failed."""
        left = [(probe, found) for probe, found in self._by_owner(gates) if not self.absent.measured(probe)]
        for probe, found in (one for one in self._by_owner(gates) if one not in left):
            if more := {Effort.QUICK: Effort.STANDARD, Effort.STANDARD: Effort.THOROUGH}.get(self.run.request.effort):
                yield self.again([probe], more, f"measures {_list(found)}")
        quiet = [p for p, found in left if self._skipped(p)]
        beside = [p for p in quiet if self.absent.beside_a_server(p)]
        others = [p for p in quiet if p not in beside]
        for chosen, what in ((beside, _BESIDE), (others, "measures {}")):
            if names := [f for p, found in left if p in chosen for f in found]:
                yield self.again(chosen, self.run.request.effort, what.format(_list(names)))
        if any(probe not in quiet for probe, _ in left):
            yield Step("bench doctor", "says what is missing here, and the command that installs it", 10.0)

    def _of_others(self, names: Sequence[str]) -> Request:
        """The request, without what was said of a server where these probes were left out beside it."""
        request = self.run.request
        if not any(map(self.absent.beside_a_server, names)):
            return request
        servers = {option.name for p in self.probes.values() if p.needs == ENDPOINT for option in p.options}
        return request.model_copy(update={"options": {k: v for k, v in request.options.items() if k not in servers}})

    def _skipped(self, probe: str) -> bool:
        codes = {code_of(result.reason) for result in self.run.results if result.probe == probe}
        return not codes or bool(codes & {Code.NOT_ASKED_FOR, Code.INTERRUPTED})

    def _absent_hardware(self, needs: set[str | None]) -> Iterator[Step]:
        request = self.run.request
        if PEER in needs and not request.peers:
            peered = request.model_copy(update={"peers": ("HOST",), "accelerator": "auto"})
            of_peers = [probe for probe in self.probes.values() if probe.peer_seconds is not None]
            seconds = sum(probe.time(peered) for probe in of_peers)
            command = self.command([probe.name for probe in of_peers], peered)
            yield Step(command, "measures the network, once `bench peer --bind ADDRESS` runs on HOST", about(seconds))
        if GPU in needs and not self.absent.without_gpu:
            real = request.model_copy(update={"accelerator": "auto"})
            yield Step(self.command([], real), "measures on the GPUs themselves", self._whole(request.effort))
        elif GPU in needs and not request.accelerator.startswith("emulated"):
            emulated = request.model_copy(update={"accelerator": _EMULATED})
            feeds = self.owners.get("starvation_ratio")
            if feeds in self.probes:
                seconds = self.probes[feeds].time(emulated)
                yield Step(
                    self.command([feeds], emulated), "shows whether this storage would feed an H100", about(seconds)
                )

    def again(self, names: Sequence[str], effort: Effort, purpose: str, more: str = "") -> Step:
        """Run these probes once more; the whole run where one of them only watches others."""
        request = self._of_others(names).model_copy(update={"effort": effort})
        if any(self.probes[name].watch for name in names):
            return Step(self.command([], request, more), purpose, self._whole(effort))
        seconds = sum(self.probes[name].time(request) for name in names)
        return Step(self.command(names, request, more), purpose, about(seconds))

    def _whole(self, effort: Effort) -> float:
        return about((WHOLE_WITH_PEER if self.run.request.peers else WHOLE)[effort])

    def command(self, names: Sequence[str], request: Request, more: str = "") -> str:
        """``bench run`` with what these probes need of the request; with all of it for no names."""
        chosen = [self.probes[name] for name in names] or list(self.probes.values())
        words = ["bench run", *(f"--probe {name}" for name in names), f"--effort {request.effort.value}"]
        if any(probe.per_path for probe in chosen):
            words += [f"--storage {_word(path)}" for path in request.storage]
        if any(probe.peer_seconds is not None for probe in chosen):
            words += [f"--peer {_word(peer)}" for peer in request.peers]
        if request.accelerator != "auto" and any("accelerator" in probe.facts for probe in chosen):
            words += [f"--accelerator {_word(request.accelerator)}"]
        needed = dict.fromkeys(self.probes[name].needs for name in names)
        words += [f"--{option} {option.upper()}" for option in needed if option and option not in request.options]
        return " ".join([*words, *_options(chosen, request), more]).strip()


def _options(probes: Iterable[Probe], request: Request) -> Iterator[str]:
    """What these probes were given beside the rest, as it is typed."""
    for probe in probes:
        for option in probe.options:
            given = request.options.get(f"{probe.name}.{option.name}", request.options.get(option.name))
            if isinstance(given, str) and option.typed:
                with suppress(ValueError):  # of another version
                    yield from (f"--{option.name.replace('_', '-')} {_word(word)}" for word in option.typed(given))
            elif isinstance(given, str) and len(given) <= _MOST_OPTION:
                yield f"--option {_word(f'{probe.name}.{option.name}={given}')}"


#: A longer one is a document (what is expected of the node), which nobody types.
_MOST_OPTION = 100


def _word(text: str) -> str:
    """As a shell reads it back, every blank of it; what does not print is spelt by its bytes."""
    hidden = {c for c in text if clean(f"x{c}x") != f"x{c}x"}
    if not hidden:
        return shlex.quote(text)
    spelt = {c: "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogatepass")) for c in (*hidden, "'", "\\")}
    return f"$'{''.join(spelt.get(c, c) for c in text)}'"


def _list(gates: Iterable[Finding]) -> str:
    names = list(dict.fromkeys(gate_name(f.metric, f.labels) for f in gates))
    return listed([*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])])


def about(seconds: float) -> float:
    """The seconds as one says them beforehand: tens of seconds, then minutes."""
    step = 60.0 if seconds > 90 else 10.0
    return step * max(1, round(seconds / step))
