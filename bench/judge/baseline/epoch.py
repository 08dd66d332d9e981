"""When a series of today may be compared with itself of earlier nights.

Every series depends on the machine: kernel, CPU and governor, memory, and the version of bench. Beyond that a probe
declares what its own series depend on (`bench.measure.probe.Probe.facts`): the GPUs and their driver, a tool's version,
the mount of the series' own path. And two figures are of one series only when the same was asked: effort, those options
of the probe that change what it measures, and the accelerator and peers where the probe says that it depends on them.

An *epoch* of a series is the runs that agree with tonight's in all of this, as far as both say it. What concerns other
series opens no epoch: a disk that was mounted anew says nothing of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bench.model import Node, Request

#: A series' labels, sorted.
Labels = tuple[tuple[str, str], ...]

#: What every series depends on. A run whose facts were not kept has its fingerprint alone.
_MACHINE = ("fingerprint", "kernel", "architecture", "cpu", "governor", "memory_bytes", "versions.bench")
#: In words for people; the rest of the facts explains figures but does not part epochs.
_FACTS = ("kernel", "governor", "nvidia_driver", "gpus", "cpu", "memory_bytes", "architecture", "versions", "mounts")
#: Of a mount: the kernel numbers devices anew at every mount, and its options do not name the storage.
_MOUNT = ("source", "fstype")


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """What the series of one probe depend on. ``terms``: what a request asks of it that changes what it measures.

    ``watches``: its series are made in the stages of other probes.
    """

    probe: str = ""
    facts: tuple[str, ...] = ()
    terms: Callable[[Request], Mapping[str, str]] = lambda _: {}
    watches: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Circumstances:
    """Under which one or many runs were made: what is kept of the node's facts, and the request."""

    facts: Mapping[str, Any]
    request: Request


def epoch_of(node: Node, request: Request) -> str:
    """A run's circumstances as one line, for people; what parts the epochs of a series is finer."""
    return f"{node.fingerprint} {request.effort.value} {request.accelerator}"


def telling(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that explain a new epoch, without the rest."""
    return {name: facts[name] for name in _FACTS if name in facts}


def kept(node: Node) -> dict[str, Any]:
    """Of the node's facts what epochs depend on; the same for runs between which nothing of it changed."""
    facts = telling(node.facts)
    if not facts:
        return {"fingerprint": node.fingerprint}
    return facts | {"mounts": {path: _part(mount, _MOUNT) for path, mount in _mapping(facts, "mounts").items()}}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs, one ``name: old -> new`` each, nested facts with their path: ``versions.fio: 3.33 -> 3.36``."""
    found: list[str] = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name}.{change}" for change in changes(old, new)]
        elif old != new:
            found.append(f"{name}: {_shown(old)} -> {_shown(new)}")
    return found


def changed(before: Circumstances, now: Circumstances, scope: Scope, labels: Labels) -> tuple[str, ...]:
    """What differs between the facts that a series depends on, in words. What only one says is no difference."""
    return _changed(before, now, scope, dict(labels).get("path", ""))


def other_terms(before: Circumstances, now: Circumstances, scope: Scope, labels: Labels) -> tuple[str, ...]:
    """What was asked otherwise of a series, in words."""
    return _other_terms(before, now, scope, "peer" in dict(labels))


def asked_for(before: Circumstances, now: Circumstances, scope: Scope, labels: Labels) -> bool:
    """Does tonight's request ask for a series as an earlier one did: its probe, path and peer, on the same terms?"""
    past, tonight = before.request, now.request
    needed = set(past.probes) if scope.watches else {scope.probe}
    places = (("path", past.storage, tonight.storage), ("peer", past.peers, tonight.peers))
    return (
        scope.probe in past.probes
        and needed <= set(tonight.probes)
        and all(_still(dict(labels).get(label), old, new) for label, old, new in places)
        and not other_terms(before, now, scope, labels)
    )


def other_version(before: Circumstances, now: Circumstances) -> bool:
    """Was the earlier run made by another version of bench?"""
    return _mapping(before.facts, "versions").get("bench") != _mapping(now.facts, "versions").get("bench")


def _still(place: str | None, before: tuple[str, ...], now: tuple[str, ...]) -> bool:
    """Is the place of that label still asked for? One that no request names stands for all that is named (loopback)."""
    return place is None or (place in now if place in before else set(before) == set(now))


@lru_cache(maxsize=10_000)
def _changed(before: Circumstances, now: Circumstances, scope: Scope, path: str) -> tuple[str, ...]:
    old, new = (_concerning(one.facts, scope, path) for one in (before, now))
    both = [name for name in old if name in new]
    return tuple(changes({name: old[name] for name in both}, {name: new[name] for name in both}))


@lru_cache(maxsize=10_000)
def _other_terms(before: Circumstances, now: Circumstances, scope: Scope, has_peer: bool) -> tuple[str, ...]:
    return tuple(changes(*(_terms(one.request, scope, has_peer) for one in (before, now))))


def _terms(request: Request, scope: Scope, has_peer: bool) -> dict[str, Any]:
    """What was asked; a series of no single peer is of all of them (and of the model that answers behind them)."""
    together = "peers" in scope.facts and not has_peer
    asked: dict[str, Any] = {"effort": request.effort.value, **scope.terms(request)}
    asked |= {"accelerator": request.accelerator} if together or "accelerator" in scope.facts else {}
    return asked | ({"peers": sorted(request.peers)} if together else {})


def _concerning(facts: Mapping[str, Any], scope: Scope, path: str) -> dict[str, Any]:
    """The facts that a series depends on and that are known, by their dotted names."""
    found: dict[str, Any] = {}
    for name in (*_MACHINE, *scope.facts):
        if name == "mounts":
            mount = _mapping(_mapping(facts, name), path)
            found |= {f"{name}.{path}.{key}": value for key, value in mount.items()}
        elif name == "gpus":  # kinds, not how many: a card that is lost is missed by its own series
            found[name] = sorted(set(map(str, facts.get(name) or ())))
        else:
            head, _, tail = name.partition(".")
            found[name] = _mapping(facts, head).get(tail) if tail else facts.get(name)
    return {name: value for name, value in found.items() if value not in (None, [])}


def _mapping(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def _part(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value[name] for name in names if name in value} if isinstance(value, Mapping) else {}


def _shown(value: Any) -> str:
    if value in (None, [], {}):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
