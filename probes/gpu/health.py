"""What the run found out about each card's health: counters before and after, and states that forbid work. Pure.

Every finding is a number that a gate with ``max = 0`` (or ``min = 1`` for a link) turns into NO-GO; what could not be
read is not there, so that the gate says so. Sources: NVIDIA's NVML reference and Xid catalogue; the rules of DCGM,
Azure NHC and IBM Autopilot, which treat uncorrected errors, pending remaps and lost cards as reasons to drain a node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bench.model import Code, Measurement
from probes.common.metrics import figure
from probes.common.windows import Sample, Stage, finite

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
#: What cards without NVLink, of before Hopper or without high-bandwidth memory do not have.
_OF_SOME_CARDS = frozenset({"gpm", "memory_temperature", "mig", "nvlinks", "nvlink_errors", "nvlink_recoveries"})
_LOADED = ("inference.", "feed.", "endpoint.")  # stages in which a link is not asleep


@dataclass(frozen=True, slots=True)
class CardHealth:
    """One card over the whole run. ``bridged``: some card has an NVLink up; ``shared``: with a server under test."""

    samples: Sequence[Sample]
    index: str
    bridged: bool = False
    shared: bool = False

    def figures(self, stages: Sequence[Stage], facts: Mapping[str, Any]) -> Iterator[Measurement]:
        """All that is known of its health."""
        gone, links = self._gone(), list(self._links(stages, facts))
        yield self._figure("accelerator_lost_devices", float(gone is not None))
        for key, metric in _COUNTERS.items():
            yield from self._counter(key, metric, gone)
        yield from chain(self._rows(), self._recovery(), links, self._xid_errors(), self._foreign())
        yield self._drain_reasons(gone, links)
        yield self._info(facts)

    def doubts(self) -> Iterator[str]:
        """What a person should know of the card besides its figures, one sentence each."""
        if self._mode("persistence") == "off":
            yield f"GPU {self.index}: persistence mode is off, so first touches are slow (nvidia-smi -pm 1)"
        if self._mode("mig") == "on":
            yield f"GPU {self.index}: MIG is on; figures are of the whole card, and utilization may be missing"
        if self._mode("ecc_mode") == "off":
            yield f"GPU {self.index}: ECC is off, so memory errors go unseen (nvidia-smi -e 1, then reset)"
        if (ecc := self._readings("ecc_mode")) and ecc[-1][0] != ecc[-1][1]:
            yield f"GPU {self.index}: a change of the ECC mode waits for a reset"
        if before := [v for v in self._readings("ecc_uncorrected") if finite(v)]:
            yield f"GPU {self.index}: {before[0]} uncorrected errors since its last reset"
        if hung := self._readings("hung"):
            still = f" and still does not: {hung[0]}" if self.samples[-1].get("hung") else ""
            late = f"{len(hung)} of {len(self.samples)} samples"
            yield f"GPU {self.index}: the driver did not answer in time for {late}{still}"
        if (errors := self._readings("errors")) and (missing := unreadable(errors[-1])):
            yield f"GPU {self.index}: not readable: {missing}"

    # --- what was read

    def _readings(self, key: str) -> list[Any]:
        return [value for sample in self.samples if (value := sample.get(key)) is not None]

    def _gone(self) -> str | None:
        """Why the card, or the whole driver, no longer answers. One that was slow and came back has lost nothing."""
        if why := next(filter(None, self._readings("lost")), None):
            return f"{Code.GPU_LOST}: {why}"
        return f"{Code.NVML_HANGS}: {why}" if self.samples and (why := self.samples[-1].get("hung")) else None

    def _xids(self) -> list[int]:
        """The card's critical errors, and those that name no card."""
        return [int(xid) for heard in self._readings("xids") for card, xid in heard if str(card) in (self.index, "-1")]

    def _others(self) -> int | None:
        """The most programs of others that were seen at once; None where they cannot be listed."""
        return max((len(set(pids)) for pids in self._readings("processes")), default=None)

    def _mode(self, key: str) -> str | None:
        if not (readings := self._readings(key)):
            return None
        current = readings[-1][0] if isinstance(readings[-1], list) else readings[-1]
        return "on" if current else "off"

    # --- figures

    def _figure(self, metric: str, value: float, n: int = 1, invalid: str | None = None, **labels: str) -> Measurement:
        return figure(metric, value, {"device": self.index, **labels}, n=n, invalid=invalid)

    def _counter(self, key: str, metric: str, gone: str | None) -> Iterator[Measurement]:
        """How much it grew in the run, of two readings or more; void if the card vanished or the counter was reset."""
        values = [v for r in self._readings(key) if (v := finite(r)) is not None]
        if not values or (len(values) < 2 and gone is None):
            return
        grown = values[-1] - values[0]
        invalid = gone or (f"{Code.COUNTER_RESET}: it is lower than before the run" if grown < 0 else None)
        yield self._figure(metric, max(0.0, grown), len(values), invalid)

    def _rows(self) -> Iterator[Measurement]:
        """Rows of memory that were, or wait to be, replaced: (corrected, uncorrected, pending, failed) of NVML."""
        if rows := self._readings("remapped"):
            yield self._figure("accelerator_pending_row_remaps", max(float(row[2]) for row in rows), len(rows))
            yield self._figure("accelerator_failed_row_remaps", max(float(row[3]) for row in rows), len(rows))

    def _recovery(self) -> Iterator[Measurement]:
        if codes := [int(code) for code in self._readings("recovery_action")]:
            worst = next((code for code in reversed(codes) if code), 0)
            action = RECOVERY_ACTIONS.get(worst, f"unknown_{worst}") if worst else "none"
            yield self._figure("accelerator_recovery_actions", 1.0 if worst else 0.0, len(codes), action=action)

    def _links(self, stages: Sequence[Stage], facts: Mapping[str, Any]) -> Iterator[Measurement]:
        """The best state of the PCIe link while the card was under load, over the best that card and slot can do.

        The best and not the last: an idle link drops to generation 1 to save power, also between two steps.
        """
        loaded = [stage for stage in stages if stage.name.startswith(_LOADED)]
        for aspect in ("generation", "width"):
            limit = finite(facts.get(f"max_{aspect}"))
            seen = [v for stage in loaded for v in stage.values(aspect)]
            if seen and limit:
                ratio = min(1.0, max(seen) / limit)
                yield self._figure("accelerator_pcie_link_ratio", ratio, len(seen), aspect=aspect)
        states = self._readings("nvlinks")
        if any(states) and self.bridged:  # PCIe cards have links too, and none up where no bridge joins them
            yield self._figure("accelerator_nvlink_inactive_links", float(max(row.count(0) for row in states)))

    def _xid_errors(self) -> Iterator[Measurement]:
        """Critical errors that the driver reported, those of the hardware and those of programs apart."""
        heard = len(self._readings("xids"))
        for kind, wanted in (("hardware", False), ("application", True)) if heard else ():
            found = [xid for xid in self._xids() if (xid in APPLICATION_XIDS) is wanted]
            codes = ",".join(str(xid) for xid in sorted(set(found))) or "none"
            yield self._figure("accelerator_xid_errors", float(len(found)), heard, kind=kind, xid=codes)

    def _foreign(self) -> Iterator[Measurement]:
        """Programs on the card that are not ours: they are looked for when no load of ours runs.

        Others on the card void the run rather than fail it: the card is contended, not broken.
        """
        if (others := self._others()) is not None:
            yield self._figure("accelerator_foreign_processes", float(others), invalid=self._contended(others))

    def _drain_reasons(self, gone: str | None, links: Sequence[Measurement]) -> Measurement:
        """How many of the states that forbid work this card was in; ``checked`` names those that could be looked at.

        One number for one gate, because a driver before 570 has no recovery action and an old card no row remapping:
        what such a card cannot say is in no one's way, and stands in the label. Others on the card void a clean answer.
        """
        rows = self._readings("remapped")
        states: dict[str, list[Any]] = {
            "lost": [gone],
            "pending_row_remap": [row[2] for row in rows],
            "failed_row_remap": [row[3] for row in rows],
            "recovery_action": self._readings("recovery_action"),
            "xid": [None for _ in self._readings("xids")] + [x for x in self._xids() if x not in APPLICATION_XIDS],
            "pcie_link": [m.value < 1.0 for m in links if m.metric == "accelerator_pcie_link_ratio"],
        }
        checked = [name for name, seen in states.items() if seen]
        reasons = [name for name in checked if any(states[name])]
        return self._figure(
            DRAIN, float(len(reasons)), invalid=None if reasons else self._contended(self._others()),
            reasons=",".join(reasons) or "none", checked=",".join(checked),
        )  # fmt: skip

    def _contended(self, others: int | None) -> str | None:
        return f"{Code.CONTENDED}: {others} other programs use this GPU" if others and not self.shared else None

    def _info(self, facts: Mapping[str, Any]) -> Measurement:
        named = {key: facts.get(key) for key in ("name", "uuid", "bus", "driver")}
        modes = {"mig": self._mode("mig"), "ecc": self._mode("ecc_mode"), "persistence": self._mode("persistence")}
        labels = {key: str(said) for key, said in {**named, **modes}.items() if said is not None}
        return figure("accelerator_info", 1.0, {"device": self.index, **labels})


def unreadable(errors: Mapping[str, str]) -> str:
    """Readings without a value, each with the reason, but for what many sound cards do not have."""
    told = {name: why for name, why in errors.items() if why != "NotSupported" or name not in _OF_SOME_CARDS}
    return ", ".join(f"{name} ({why})" for name, why in sorted(told.items()))
