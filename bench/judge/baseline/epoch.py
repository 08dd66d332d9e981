"""When runs of one node may be compared: the same machine, measured in the same way.

An epoch is the node's fingerprint (a digest of kernel, CPU and governor, memory, GPU models, driver, tool versions and
mounts that `bench.measure.node` makes) with what was asked of the run (effort and accelerator). A change opens a new
epoch, whose baseline warms up anew; going back to what was before finds the earlier nights again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.model import Node, Request

#: In words for people; the rest of the facts explains figures but does not part epochs.
_FACTS = ("kernel", "governor", "nvidia_driver", "gpus", "cpu", "memory_bytes", "architecture", "versions", "mounts")


def epoch_of(node: Node, request: Request) -> str:
    """The epoch that a run belongs to, as one line."""
    return f"{node.fingerprint} {request.effort.value} {request.accelerator}"


def telling(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that explain a new epoch, without the rest."""
    return {name: facts[name] for name in _FACTS if name in facts}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs, one ``name: old -> new`` each, nested facts with their path: ``versions.fio: 3.33 -> 3.36``."""
    found: list[str] = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name}.{change}" for change in changes(old, new)]
        else:
            found.append(f"{name}: {_shown(old)} -> {_shown(new)}")
    return found


def _shown(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
