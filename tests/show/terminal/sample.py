"""A whole run of a small machine without a GPU and without a peer: what most people see first. Made by hand."""

from __future__ import annotations

from typing import Any

from bench.model import (
    Attribution,
    Components,
    Decision,
    Effort,
    Evidence,
    Finding,
    Limit,
    Measurement,
    Node,
    Outcome,
    ProbeResult,
    Request,
    Run,
    Status,
    Verdict,
)

STEM = "20261122T105103Z-3f2a9c1b77de"
SEQUENTIAL: Any = {"pattern": "sequential", "block_bytes": "1048576", "queue_depth": "deep"}
RANDOM: Any = {"pattern": "random", "queue_depth": "1", "statistic": "p99"}
NO_NVML = "nvml_missing: libnvidia-ml.so.1 is not installed, so no NVIDIA driver is"
DESCRIPTIONS = {
    "distributed-training": "Data arrives faster than the accelerator trains, gradients pass between nodes, "
    "checkpoints are written.",
    "realtime-inference": "An answer begins within 200 ms: 50 ms network, 10 ms storage, 140 ms model, each at its "
    "99th percentile.",
    "batch-inference": "The accelerator works through stored inputs and never waits for them.",
}
FASTER = "Give the data a faster path: more readers, local NVMe as a cache, or fewer nodes on this storage."
MOUNT = "Check the mount's options, the drive's health and PCIe link, and how many clients share the file system."


def measurement(metric: str, value: float, spread: float = 0.05, **labels: str) -> Measurement:
    interval = (value * (1 - spread), value * (1 + spread))
    repeats = (value * (1 - spread / 2), value, value * (1 + spread / 2))
    return Measurement(metric=metric, value=value, interval=interval, samples=5, labels=labels, repeats=repeats)


def finding(metric: str, status: Status, found: Measurement | None = None, **values: Any) -> Finding:
    values = {"required": True, "source": "a source, section 4", **values}
    limit = Limit(min=values.pop("min", None), max=values.pop("max", None))
    if found:
        values |= {"observed": found.value, "interval": found.interval, "stand_in": found.stand_in}
    return Finding(metric=metric, limit=limit, status=status, **values)


READ = measurement("storage_read_bytes_per_second", 1.05e9, path="/data", **SEQUENTIAL)
WRITE = measurement("storage_write_bytes_per_second", 1.31e9, 0.3, path="/data", **SEQUENTIAL)
LATENCY = measurement("storage_read_latency_seconds", 0.00231, path="/data", **RANDOM)
TCP = measurement("network_throughput_bytes_per_second", 2.2e9, peer="loopback", direction="send", stand_in="loopback")
STARVED = measurement("starvation_ratio", 0.66, component="storage", path="/data", stand_in="emulated")
TOTAL = measurement("starvation_ratio", 0.71, component="total", path="/data", stand_in="emulated")
TOKEN = measurement("inference_inter_token_seconds", 0.0217, stage="decode", statistic="p50", stand_in="cpu")
JITTER = measurement("network_jitter_seconds", 0.000012, peer="loopback", direction="send", stand_in="loopback")


def _gpu(metric: str, limit: float) -> Finding:
    reason, remedy = f"probe_unsupported: {NO_NVML}", "install the NVIDIA driver"
    return finding(metric, Status.NO_DATA, max=limit, reason=reason, remedy=remedy)


def _stood_in(found: Measurement, labels: dict[str, str], remedy: str, **limit: float) -> Finding:
    reason = f"stand_in: {found.stand_in} in place of the real thing, which this gate does not accept"
    return finding(found.metric, Status.NO_DATA, found, labels=labels, reason=reason, remedy=remedy, **limit)


PEER = "start `bench peer` on another node and name it with --peer HOST"
GPU_NODE = "run it on a node with the accelerator"
GPU_GATES = (_gpu("accelerator_uncorrected_errors", 0.0), _gpu("accelerator_throttle_ratio", 0.01))
STORAGE_PART, WHOLE = {"component": "storage"}, {"component": "total"}
READ_GATE = finding(
    READ.metric, Status.FAIL, READ, labels=SEQUENTIAL, min=2147483648.0, remedy=MOUNT,
    reason="(the worst was at path=/data)",
)  # fmt: skip
OPTIONAL = finding("starvation_ratio", Status.FAIL, TOTAL, labels=WHOLE, max=0.05, required=False, remedy="Look at it.")

TRAINING = (
    finding("starvation_ratio", Status.FAIL, STARVED, labels=STORAGE_PART, max=0.1, remedy=FASTER),
    _stood_in(TOTAL, WHOLE, GPU_NODE, max=0.2),
    READ_GATE,
    finding(
        WRITE.metric, Status.UNDECIDED, WRITE, labels=SEQUENTIAL, min=1073741824.0,
        reason="straddles_limit: 917 MB/s to 1.703 GB/s lies on both sides of 1.074 GB/s",
        remedy="measure again on a quiet node with --effort thorough",
    ),
    _stood_in(TCP, {}, PEER, min=6.25e9),
    *GPU_GATES,
    OPTIONAL,
)  # fmt: skip
REALTIME = (
    finding(
        "network_round_trip_seconds", Status.NO_DATA, labels={"statistic": "p99"}, max=0.05,
        reason="not_measured: the probe echo did not run", remedy="add --probe echo",
    ),
    _stood_in(JITTER, {}, PEER, max=0.03),
    finding(LATENCY.metric, Status.PASS, LATENCY, labels=RANDOM, max=0.01),
    finding(TOKEN.metric, Status.PASS, TOKEN, labels={"statistic": "p50"}, max=0.1),
    *GPU_GATES,
)  # fmt: skip
BATCH = (finding(LATENCY.metric, Status.PASS, LATENCY, labels=RANDOM, max=0.01),)


def verdict(profile: str, decision: Decision, score: float, findings: tuple[Finding, ...]) -> Verdict:
    return Verdict(profile=profile, digest="d" * 64, decision=decision, score=score, findings=findings)


def results() -> tuple[ProbeResult, ...]:
    evidence = (Evidence(path=f"{STEM}.raw/0001-storage-read.json", sha256="a" * 64),)
    return (
        ProbeResult(
            probe="storage", outcome=Outcome.OK, duration_seconds=61.2, measurements=(READ, WRITE, LATENCY),
            evidence=evidence, warnings=("io_uring is not allowed here; libaio was used",),
        ),
        ProbeResult(
            probe="network", outcome=Outcome.OK, duration_seconds=20.0,
            measurements=(TCP, JITTER.model_copy(update={"invalid": "the host was contended"})),
        ),
        ProbeResult(probe="inference", outcome=Outcome.OK, duration_seconds=30.0, measurements=(TOKEN,)),
        ProbeResult(probe="feed", outcome=Outcome.OK, duration_seconds=45.0, measurements=(STARVED, TOTAL)),
        ProbeResult(probe="gpu", outcome=Outcome.UNSUPPORTED, reason=NO_NVML, remedy="install the NVIDIA driver"),
        ProbeResult(probe="gpu_deep", outcome=Outcome.UNSUPPORTED, reason=NO_NVML, remedy="install the NVIDIA driver"),
        ProbeResult(probe="burn", outcome=Outcome.TIMED_OUT, reason="tool_timed_out: burn did not end within 60 s"),
    )  # fmt: skip


def talking_run(**changes: Any) -> Run:
    """A node that may serve a conversation: a GO that rests on round trips, with what the echo saw of spikes."""
    trip = measurement("network_round_trip_seconds", 0.0004, peer="node-18", state="loaded", statistic="p99")
    network = ProbeResult(
        probe="network", outcome=Outcome.OK, duration_seconds=150.0,
        measurements=(trip, *spikes(0, 300.0, state="idle"), *spikes(2, 300.0, state="loaded")),
    )  # fmt: skip
    gate = finding(trip.metric, Status.PASS, trip, labels={"statistic": "p99"}, max=0.05)
    values: dict[str, Any] = {
        "request": Request(effort=Effort.THOROUGH, probes=("network",), peers=("node-18",)),
        "results": (network,),
        "attribution": None,
        "verdicts": (verdict("realtime-inference", Decision.GO, 100.0, (gate,)),),
    }
    return cpu_run(**(values | changes))


def spikes(seen: int, seconds: float, **labels: str) -> tuple[Measurement, ...]:
    """The echo's events of the network's own, and the bound of their rate (Poisson, 95 %: 3.00 for 0, 6.30 for 2)."""
    bound, named = {0: 2.996, 2: 6.296}[seen] / seconds, {"peer": "node-18", **labels}
    rate = Measurement(
        metric="network_spike_rate_upper_bound_per_second", value=bound, interval=(bound, bound), samples=500,
        labels=named,
    )  # fmt: skip
    events = [
        Measurement(
            metric="network_spike_events", value=number, interval=(number, number), samples=500,
            labels={**named, "place": place, "threshold_seconds": threshold},
        )
        for threshold, number, place in (("0.1", 0, "network"), ("0.02", seen, "network"), ("0.02", 7, "host"))
    ]  # fmt: skip
    return (rate, *events)


def cpu_run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "id": "3f2a9c1b77de",
        "started_at": "2026-11-22T10:51:03.250Z",
        "finished_at": "2026-11-22T10:55:00.000Z",
        "bench_version": "1.2.3",
        "node": Node(
            hostname="node-17.example.com",
            fingerprint="0123456789abcdef",
            facts={"kernel": "6.1.0", "gpus": [], "versions": {"fio": "fio-3.33", "python": "3.11.7"}, "boot_id": "x"},
        ),
        "request": Request(effort=Effort.STANDARD, probes=("storage",), storage=("/data",)),
        "results": results(),
        "attribution": Attribution(
            bottleneck="storage", starved=True, starvation_ratio=0.71, components=Components(storage=0.66),
            demand_bytes_per_second=1.1e9, supply_bytes_per_second=3.8e8, supply_gap_ratio=0.66, valid=True,
            explanation="Storage starves the accelerator: it needs 1.1 GB/s and gets 380 MB/s, so it stands idle 71 % "
            "of the time (path /data; an emulated accelerator stood in for a real one).",
            path="/data", stand_in="emulated",
        ),
        "verdicts": (
            verdict("distributed-training", Decision.NO_GO, 15.15, TRAINING),
            verdict("realtime-inference", Decision.INCONCLUSIVE, 0.0, REALTIME),
            verdict("batch-inference", Decision.GO, 100.0, BATCH),
        ),
    }  # fmt: skip
    return Run(**(values | changes))
