"""What hardware a run says its node has, where a gate depends on it. What is not known is None, never none."""

from __future__ import annotations

import re

from bench.model import Code, Run, code_of

_EMULATED = re.compile(r"emulated(?::[^*]*)?(?:\*(?P<count>[0-9]{1,4}))?")
#: Ports that training moves gradients over by RDMA, counted by the fabric watcher.
RDMA_PORTS = "fabric_rdma_ports"


def accelerators(run: Run) -> int | None:
    """How many accelerators the node feeds: as many as were emulated by number, else the cards that are there.

    Cards are those that were watched, else those that the driver lists, however few of them the run used. One emulated
    accelerator without a number stands for each card of the node, and for one where there is none.
    """
    emulated = _EMULATED.fullmatch(run.request.accelerator)
    if emulated and emulated["count"]:
        return int(emulated["count"]) or None
    listed = run.node.facts.get("gpus")
    named = {measurement.labels.get("device") for measurement in run.find("accelerator_info")}
    cards = len(named) or (len(listed) if isinstance(listed, list | tuple) else 0)
    return cards or (1 if emulated else None)


def fed_together(run: Run) -> int:
    """How many accelerators the feed's rates are of: as many as were emulated by number, else the one that was fed."""
    emulated = _EMULATED.fullmatch(run.request.accelerator)
    return max(1, int(emulated["count"] or 1)) if emulated else 1


def has_rdma(run: Run) -> bool | None:
    """Whether the node has a port to train over by RDMA; None where neither watcher nor probe looked."""
    if found := run.find(RDMA_PORTS):
        return any(measurement.value > 0 for measurement in found)
    return False if any(code_of(result.reason) is Code.NO_DEVICE for result in run.results) else None
