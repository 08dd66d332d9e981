"""What the run found out about each card's health: counters before and after, and states that forbid work. Pure.

Every finding is a number that a gate with ``max = 0`` (or ``min = 1`` for a link) turns into NO-GO; what could not be
read is not there, so that the gate says so. Sources: NVIDIA's NVML reference and Xid catalogue; the rules of DCGM,
Azure NHC and IBM Autopilot, which treat uncorrected errors, pending remaps and lost cards as reasons to drain a node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.model import Code, Measurement
from probes.common.windows import Sample, Stage, finite
from probes.gpu.parse import figure, reader

#: Xids that a program causes by its own fault or end (NVIDIA, "Xid Errors"); they do not speak against the card.
APPLICATION_XIDS = frozenset({13, 31, 43, 45})
#: nvml.h, nvmlDeviceGpuRecoveryAction_t.
RECOVERY_ACTIONS = {
    1: "gpu_reset", 2: "node_reboot", 3: "drain_p2p", 4: "drain_and_reset", 5: "recover_imex_domain", 6: "bus_reset",
    7: "system_reboot",
}  # fmt: skip
_COUNTERS = {
    "ecc_uncorrected": "accelerator_uncorrected_errors",
    "ecc_corrected": "accelerator_corrected_errors",
    "replays": "accelerator_pcie_replays",
    "nvlink_recoveries": "accelerator_nvlink_recoveries",
    "nvlink_errors": "accelerator_nvlink_errors",
}
DRAIN = "accelerator_drain_reasons"
_LOADED = ("inference.", "feed.")  # stages in which a link is not asleep


def card_figures(
    samples: Sequence[Sample], stages: Sequence[Stage], index: str, facts: Mapping[str, Any]
) -> Iterator[Measurement]:
    """One card's health over the whole run."""
    labels = {"device": index}
    lost = next((card["lost"] for s in samples if (card := s.get("cards", {}).get(index)) and card.get("lost")), None)
    hung = next((str(s["hung"]) for s in samples if s.get("hung")), None)
    gone = f"{Code.GPU_LOST}: {lost}" if lost else f"{Code.NVML_HANGS}: {hung}" if hung else None
    yield figure("accelerator_lost_devices", 1.0 if gone else 0.0, labels)
    for key, metric in _COUNTERS.items():
        yield from _counter(samples, index, key, metric, gone)
    yield from _rows(samples, index, labels)
    yield from _recovery(samples, index, labels)
    links = list(_links(samples, stages, index, facts))
    yield from links
    yield from _xids(samples, index, labels)
    yield from _foreign(samples, index, labels)
    yield _drain_reasons(samples, index, gone, links)
    yield _info(samples, index, facts)


def _readings(samples: Sequence[Sample], index: str, key: str) -> list[Any]:
    read = reader(index, key)
    return [value for s in samples if (value := read(s)) is not None]


def _counter(samples: Sequence[Sample], index: str, key: str, metric: str, gone: str | None) -> Iterator[Measurement]:
    """How much it grew during the run. A card that vanished, or a counter that was reset, leaves it void."""
    values = [v for r in _readings(samples, index, key) if (v := finite(r)) is not None]
    if not values:
        return
    grown = values[-1] - values[0]
    invalid = gone or (f"{Code.COUNTER_RESET}: it is lower than before the run" if grown < 0 else None)
    yield figure(metric, max(0.0, grown), {"device": index}, n=len(values), invalid=invalid)


def _rows(samples: Sequence[Sample], index: str, labels: Mapping[str, str]) -> Iterator[Measurement]:
    """Rows of memory that were, or wait to be, replaced: (corrected, uncorrected, pending, failed) of NVML."""
    rows = _readings(samples, index, "remapped")
    if rows:
        yield figure("accelerator_pending_row_remaps", max(float(row[2]) for row in rows), labels, n=len(rows))
        yield figure("accelerator_failed_row_remaps", max(float(row[3]) for row in rows), labels, n=len(rows))


def _recovery(samples: Sequence[Sample], index: str, labels: Mapping[str, str]) -> Iterator[Measurement]:
    codes = [int(code) for code in _readings(samples, index, "recovery_action")]
    if codes:
        worst = next((code for code in reversed(codes) if code), 0)
        action = RECOVERY_ACTIONS.get(worst, f"unknown_{worst}") if worst else "none"
        yield figure("accelerator_recovery_actions", 1.0 if worst else 0.0, {**labels, "action": action}, n=len(codes))


def _links(
    samples: Sequence[Sample], stages: Sequence[Stage], index: str, facts: Mapping[str, Any]
) -> Iterator[Measurement]:
    """The best state of the PCIe link while the card was under load, over the best that card and slot can do.

    The best and not the last: an idle link drops to generation 1 to save power, also between two steps.
    """
    loaded = [stage for stage in stages if stage.name.startswith(_LOADED)]
    for aspect, most in (("generation", "max_generation"), ("width", "max_width")):
        limit = finite(facts.get(most))
        seen = [v for stage in loaded for v in stage.values(reader(index, aspect))]
        if seen and limit:
            ratio = min(1.0, max(seen) / limit)
            yield figure("accelerator_pcie_link_ratio", ratio, {"device": index, "aspect": aspect}, n=len(seen))
    states = _readings(samples, index, "nvlinks")
    if states and any(states):
        yield figure("accelerator_nvlink_inactive_links", float(max(row.count(0) for row in states)), {"device": index})


def _xids(samples: Sequence[Sample], index: str, labels: Mapping[str, str]) -> Iterator[Measurement]:
    """Critical errors that the driver reported, those of the hardware and those of programs apart."""
    heard = [s["xids"] for s in samples if s.get("xids") is not None]
    if not heard:
        return
    mine = [int(xid) for xids in heard for card, xid in xids if str(card) in (index, "-1")]
    for kind, wanted in (("hardware", False), ("application", True)):
        found = [xid for xid in mine if (xid in APPLICATION_XIDS) is wanted]
        codes = ",".join(str(xid) for xid in sorted(set(found))) or "none"
        yield figure("accelerator_xid_errors", float(len(found)), {**labels, "kind": kind, "xid": codes}, n=len(heard))


def _drain_reasons(
    samples: Sequence[Sample], index: str, gone: str | None, links: Sequence[Measurement]
) -> Measurement:
    """How many of the states that forbid work this card was in; ``checked`` names those that could be looked at.

    One number for one gate, because a driver before 570 has no recovery action and an old card no row remapping: what
    such a card cannot say is in no one's way, and stands in the label. Others on the card void a clean answer.
    """
    rows = _readings(samples, index, "remapped")
    actions = [int(code) for code in _readings(samples, index, "recovery_action")]
    xids = [s["xids"] for s in samples if s.get("xids") is not None]
    hardware = [x for heard in xids for card, x in heard if str(card) in (index, "-1") and x not in APPLICATION_XIDS]
    slow = [m.value < 1.0 for m in links if m.metric == "accelerator_pcie_link_ratio"]
    found = {
        "lost": gone is not None,
        "pending_row_remap": any(row[2] for row in rows) if rows else None,
        "failed_row_remap": any(row[3] for row in rows) if rows else None,
        "recovery_action": any(actions) if actions else None,
        "xid": bool(hardware) if xids else None,
        "pcie_link": any(slow) if slow else None,
    }
    labels = {
        "device": index,
        "reasons": ",".join(name for name, bad in found.items() if bad) or "none",
        "checked": ",".join(name for name, bad in found.items() if bad is not None),
    }
    number, others = sum(bool(bad) for bad in found.values()), _others(samples, index)
    invalid = f"{Code.CONTENDED}: {others} other programs use this GPU" if others and not number else None
    return figure(DRAIN, float(number), labels, invalid=invalid)


def _others(samples: Sequence[Sample], index: str) -> int | None:
    """The most programs of others that were seen at once; None where they cannot be listed."""
    seen = [set(pids) for pids in _readings(samples, index, "processes")]
    return max(len(pids) for pids in seen) if seen else None


def _foreign(samples: Sequence[Sample], index: str, labels: Mapping[str, str]) -> Iterator[Measurement]:
    """Programs on the card that are not ours: they are looked for when no load of ours runs.

    Others on the card void the run rather than fail it: the card is contended, not broken.
    """
    others = _others(samples, index)
    if others is not None:
        invalid = f"{Code.CONTENDED}: {others} other programs use this GPU" if others else None
        yield figure("accelerator_foreign_processes", float(others), labels, invalid=invalid)


def _info(samples: Sequence[Sample], index: str, facts: Mapping[str, Any]) -> Measurement:
    """The card's identity and modes, as labels."""
    modes = {
        "mig": _mode(samples, index, "mig"), "ecc": _mode(samples, index, "ecc_mode"),
        "persistence": _mode(samples, index, "persistence"),
    }  # fmt: skip
    named = {key: str(facts[key]) for key in ("name", "uuid", "bus", "driver") if facts.get(key) is not None}
    return figure("accelerator_info", 1.0, {"device": index, **named, **{k: v for k, v in modes.items() if v}})


def _mode(samples: Sequence[Sample], index: str, key: str) -> str | None:
    readings = _readings(samples, index, key)
    if not readings:
        return None
    current = readings[-1][0] if isinstance(readings[-1], list) else readings[-1]
    return "on" if current else "off"


def doubts(samples: Sequence[Sample], index: str) -> Iterator[str]:
    """What a person should know of a card besides its figures, one sentence each."""
    if _mode(samples, index, "persistence") == "off":
        yield f"GPU {index}: persistence mode is off, so first touches are slow (nvidia-smi -pm 1)"
    if _mode(samples, index, "mig") == "on":
        yield f"GPU {index}: MIG is on; figures are of the whole card, and utilization may be missing"
    if _mode(samples, index, "ecc_mode") == "off":
        yield f"GPU {index}: ECC is off, so memory errors go unseen (nvidia-smi -e 1, then reset)"
    ecc = _readings(samples, index, "ecc_mode")
    if ecc and ecc[-1][0] != ecc[-1][1]:
        yield f"GPU {index}: a change of the ECC mode waits for a reset"
    before = [v for v in _readings(samples, index, "ecc_uncorrected") if finite(v)]
    if before:
        yield f"GPU {index}: {before[0]} uncorrected errors since its last reset"
    errors = _readings(samples, index, "errors")
    if errors and errors[-1]:
        missing = ", ".join(f"{name} ({why})" for name, why in sorted(errors[-1].items()))
        yield f"GPU {index}: not readable: {missing}"
