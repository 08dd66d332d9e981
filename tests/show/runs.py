"""The runs that screen and page are looked at with: recorded ones, and what else a site may meet, made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

from bench.model import Measurement, Outcome, ProbeResult, Run
from bench.workflows.catalog import Catalog, load_catalog
from bench.workflows.judging import concluded

ROOT = Path(__file__).parents[2]
CATALOG: Catalog = load_catalog(["distributed-training", "batch-inference", "realtime-inference"])
H200 = ROOT / "results/reference/h200-2026-11-26-second/run-standard.json"
H100 = "NVIDIA H100 80GB HBM3"


@cache
def recorded(name: str) -> Run:
    """A run of tests/recorded (``feed``, ``peer``, ``gpu``) or of a real card (``h200``), judged as today."""
    path = H200 if name == "h200" else ROOT / f"tests/recorded/runs/{name}.json"
    return concluded(Run.model_validate(json.loads(path.read_text(encoding="utf-8"))), CATALOG)


@cache
def no_gpu() -> Run:
    """What most people see first: no card, no peer, the CPU and the loopback stood in."""
    alone = [result for result in recorded("feed").results if result.probe in ("network", "rdma", "collective")]
    run = recorded("peer")
    kept = [r for r in run.results if r.probe not in ("network", "rdma", "collective", "response")]
    return _again(run, [*kept, *alone], peers=(), accelerator="auto")


@cache
def go() -> Run:
    """A card that does what it should, judged by the one profile that needs no peer."""
    return concluded(recorded("h200"), load_catalog(["batch-inference"]))


@cache
def interrupted() -> Run:
    """Control-C while the network was measured: what was finished before is shown."""
    run = recorded("peer")
    cut = ("network", "collective", "feed", "response")
    reason = "interrupted: SIGINT"
    results = [
        ProbeResult(probe=r.probe, outcome=Outcome.SKIPPED, reason=reason) if r.probe in cut else r for r in run.results
    ]
    return _again(run, results).model_copy(update={"interrupted_by": 2})


@cache
def eight_gpus() -> Run:
    """Eight cards, of which the sixth throttles, has lost memory and asks to be drained."""
    run = recorded("gpu")
    gpu = next(result for result in run.results if result.probe == "gpu")
    sound = [m for m in gpu.measurements if m.labels.get("device") == "0"]
    bad = [_labelled(m, device="5") for m in gpu.measurements if m.labels.get("device") == "1"]
    cards = [_labelled(m, device=str(at)) for at in range(8) if at != 5 for m in sound]
    named = [_labelled(m, name=H100) if m.metric == "accelerator_info" else m for m in (*cards, *bad)]
    warnings = tuple(text.replace("GPU 1", "GPU 5") for text in gpu.warnings)
    changed = gpu.model_copy(update={"measurements": tuple(named), "warnings": warnings})
    node = run.node.model_copy(update={"facts": {**run.node.facts, "gpus": [H100] * 8}})
    results = [changed if result.probe == "gpu" else result for result in run.results]
    return _again(run.model_copy(update={"node": node}), results, accelerator="emulated:resnet50-a100*8")


@cache
def two_of_each() -> Run:
    """Two paths and two peers, of which the second of each is much slower."""
    run = recorded("peer")

    def doubled(result: ProbeResult) -> ProbeResult:
        return result.model_copy(update={"measurements": tuple(_doubled(result.measurements))})

    paths, peers = ("/mnt", "/mnt/scratch"), ("10.0.0.2", "10.0.0.3")
    mounts = {**run.node.facts["mounts"], paths[1]: {"fstype": "nfs4", "source": "filer:/scratch"}}
    node = run.node.model_copy(update={"facts": {**run.node.facts, "mounts": mounts}})
    results = [doubled(result) for result in run.results]
    return _again(run.model_copy(update={"node": node}), results, storage=paths, peers=peers)


def _doubled(measurements: Iterable[Measurement]) -> Iterable[Measurement]:
    for m in measurements:
        first = _labelled(m, peer="10.0.0.2") if "peer" in m.labels else m
        yield first
        if "peer" in m.labels or "path" in m.labels:
            second = {"peer": "10.0.0.3"} if "peer" in m.labels else {"path": "/mnt/scratch"}
            yield _labelled(_worse(first, 0.1 if m.metric.endswith("per_second") else 3.0), **second)


def _worse(m: Measurement, factor: float) -> Measurement:
    low, high = m.interval
    return m.model_copy(update={"value": m.value * factor, "interval": (low * factor, high * factor)})


def _labelled(m: Measurement, **labels: str) -> Measurement:
    return m.model_copy(update={"labels": {**m.labels, **labels}})


def _again(run: Run, results: Iterable[ProbeResult], **request: object) -> Run:
    changed = {"results": tuple(results), "request": run.request.model_copy(update=request)}
    return concluded(run.model_copy(update=changed), CATALOG)


#: Name -> the run of it.
SHOWN: Mapping[str, Callable[[], Run]] = {
    "no-gpu": no_gpu,
    "go": go,
    "no-go": lambda: recorded("feed"),
    "interrupted": interrupted,
    "eight-gpus": eight_gpus,
    "two-of-each": two_of_each,
}
