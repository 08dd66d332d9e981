"""Why gates have no figure: what this node has not, what was left out, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

from bench.judge.gate import ENDPOINT
from bench.judge.hardware import RDMA_PORTS
from bench.measure.probe import Probe
from bench.model import Code, Finding, Outcome, Run, code_of
from bench.show import wording

GPU, PEER = "a GPU", "a peer"
NOT_ASKED = "not asked"
_NO_GPU = {Code.NVML_MISSING, Code.NO_GPU, Code.NO_CUDA, Code.CUDA_UNAVAILABLE, Code.TORCH_WITHOUT_CUDA, Code.EMULATED}
_NO_PEER = {Code.NO_PEER, Code.NO_RANKS}


class Absent:
    """What a run lacks. ``owners``: metric -> the probe that measures it, as far as the run and ``probes`` tell."""

    def __init__(self, run: Run, probes: Sequence[Probe]) -> None:
        self.run = run
        self.probes = {probe.name: probe for probe in probes}
        self.owners = {m.metric: result.probe for result in run.results for m in result.measurements}
        self.owners |= {metric.name: probe.name for probe in probes for metric in probe.metrics}
        asked = [probe for probe in probes if probe.also and probe.needs in run.request.options]
        self.owners |= {name: probe.name for probe in asked for name in probe.also}
        self.without_gpu = not wording.gpus(run) and not run.find("accelerator_info")

    def owner(self, finding: Finding) -> str | None:
        """The probe that would decide the gate: where its own has measured, the one that says whether it is asked."""
        owner = self.owners.get(finding.metric)
        unasked = code_of(finding.reason) in wording.OF_A_PROBE and self.measured(owner)
        return self.owners.get(RDMA_PORTS) if unasked else owner

    def needs(self, finding: Finding) -> str | None:
        """The hardware that a gate without data needs: `GPU` or `PEER`; None where that is not why."""
        code = code_of(finding.reason)
        if code is Code.STAND_IN:
            return PEER if finding.stand_in == "loopback" else GPU
        if code in wording.OF_A_PROBE:
            inner = code_of((finding.reason or "").partition(": ")[2])
            return GPU if inner in _NO_GPU else PEER if inner in _NO_PEER else None
        if code is not Code.NOT_MEASURED:
            return None
        probe = self.probes.get(self.owners.get(finding.metric, ""))
        of_server = probe is not None and probe.needs == ENDPOINT
        if self.without_gpu and finding.metric.startswith(("accelerator_", "inference_")) and not of_server:
            return GPU
        return PEER if probe and probe.peer_seconds is not None and not self.run.request.peers else None

    def words(self, need: str) -> str:
        """`GPU` or `PEER` in words: where an emulated one took the GPUs' place, it is they that are needed."""
        return need if need is PEER or self.without_gpu else "the GPUs themselves"

    def cause(self, finding: Finding) -> str:
        """Why a gate has no figure, in words that gates with the same fate share."""
        if not wording.asked(finding):
            return f"{NOT_ASKED} ({wording.reason_text(finding.reason)})"
        if need := self.needs(finding):
            return f"needs {self.words(need)}"
        code, probe = code_of(finding.reason), self.owners.get(finding.metric)
        if code in wording.OF_A_PROBE:
            inner = (finding.reason or "").partition(": ")[2]
            if code_of(inner) is Code.NOT_ASKED_FOR and self.beside_a_server(probe):
                return "left to the server, which has the cards for itself (--endpoint)"
            return self.why(code.removeprefix("probe_"), inner)
        if code is Code.NOT_MEASURED and self.measured(probe):
            return f"{probe} has no such figure at effort {self.run.request.effort.value}"
        return wording.reason_text(finding.reason) or "no reason was given"

    def beside_a_server(self, probe: str | None) -> bool:
        """Was it left out because a server was named, which has the node's cards for itself?"""
        known = self.probes.get(probe or "")
        return known is not None and known.on_cards and ENDPOINT in self.run.request.options

    def measured(self, probe: str | None) -> bool:
        return any(result.probe == probe and result.outcome is Outcome.OK for result in self.run.results)

    def why(self, outcome: str, reason: str | None) -> str:
        """How a probe ended and why, in words that gates and probes with the same fate share."""
        code = code_of(reason)
        if code in _NO_GPU or code in _NO_PEER:
            return f"needs {self.words(GPU if code in _NO_GPU else PEER)}"
        if code is Code.NOT_ASKED_FOR:
            return "left out by --probe"
        if code is Code.INTERRUPTED:
            return "interrupted"
        return f"{outcome.replace('_', ' ')}: {wording.reason_text(reason) or 'no reason was given'}"
