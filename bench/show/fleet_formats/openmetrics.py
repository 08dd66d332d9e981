"""The fleet as Prometheus text: the verdicts, every named host's one state, pairs, outliers, the collective.

All names begin with ``bench_fleet_``, so that the text can lie beside a node's own. A figure that nobody measured has
no sample. The nodes' own measurements are in their own runs' exports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from bench.judge.fleet.model import Collective, Fleet, NodeOutcome, Outlier, PairOutcome, Shift, State
from bench.judge.gate import FULL
from bench.model import Decision
from bench.show.export.cases import moment
from bench.show.export.openmetrics import Family, Sample, of_values, written
from bench.show.fleet_formats import FleetExport

FAMILIES: Mapping[str, str] = {
    "bench_fleet_info": "The fleet run that this is. Always 1.",
    "bench_fleet_joined_timestamp_seconds": "When it was judged, seconds since the epoch.",
    "bench_fleet_measured_timestamp_seconds": "When the oldest of the nodes' runs began, seconds since the epoch.",
    "bench_fleet_verdict": "1 for the decision that the profile came to for the fleet, 0 for the others.",
    "bench_fleet_score_ratio": "Share of its requirements that the weakest node reached; 1 is full.",
    "bench_fleet_nodes": "How many of the named hosts are in that state.",
    "bench_fleet_node_state": "1 for the one state of the named host, 0 for the others.",
    "bench_fleet_node_info": "What is known of the named host and its run. Always 1.",
    "bench_fleet_node_score_ratio": "Share of its requirements that the node's weakest profile reached.",
    "bench_fleet_pair_measured": "1 when the pair has a figure, 0 when it was to be measured and has none.",
    "bench_fleet_pair_throughput_bytes_per_second": "What the client sent to, or received from, the server.",
    "bench_fleet_outliers": "How many figures are worse than their siblings', by what follows from it.",
    "bench_fleet_outlier_deviation_ratio": "How much worse than its siblings, as a share of what is expected.",
    "bench_fleet_outlier_observed": "The figure, in the base unit of its metric.",
    "bench_fleet_outlier_expected": "The siblings' median, in the base unit of the metric.",
    "bench_fleet_shift_ratio": "How far all siblings moved together towards worse since the earlier fleet run.",
    "bench_fleet_collective_measured": "1 when every rank of the collective has a result, else 0.",
    "bench_fleet_collective_ranks": "Ranks of the collective.",
    "bench_fleet_collective_bus_bytes_per_second": "Bus bandwidth of the all-reduce by the definition of nccl-tests.",
    "bench_fleet_collective_late_seconds": "How much later than the median rank the last one arrives.",
    "bench_fleet_shared_bytes_per_second": "What the host read of the shared storage: alone, or with all at once.",
}


def render(export: FleetExport) -> str:
    families = {name: Family(text) for name, text in FAMILIES.items()}
    for name, labels, value in _samples(export.fleet):
        families[name].add(labels, value)
    return written(families)


def _samples(fleet: Fleet) -> Iterator[Sample]:
    yield from _whole(fleet)
    for node in fleet.nodes:
        yield from _node(node)
    for pair in fleet.pairs:
        yield from _pair(pair)
    for outlier in fleet.outliers:
        yield from _outlier(outlier)
    for shift in fleet.shifts:
        labels = {"class": shift.node_class, "metric": shift.metric, "selector": _selector(shift.labels)}
        yield "bench_fleet_shift_ratio", {**labels, "level": _shift_level(shift)}, shift.shift_ratio
    if fleet.collective is not None:
        yield from _collective(fleet.collective)
    for one in fleet.shared:
        for way, rates in (("alone", one.alone), ("together", one.together)):
            for host, rate in rates.items():
                yield "bench_fleet_shared_bytes_per_second", {"path": one.path, "host": host, "way": way}, rate


def _whole(fleet: Fleet) -> Iterator[Sample]:
    yield "bench_fleet_info", {"id": fleet.id, "version": fleet.bench_version or ""}, 1.0
    for word, text in (("joined", fleet.joined_at), ("measured", fleet.measured_at)):
        time = moment(text)
        if time is not None:
            yield f"bench_fleet_{word}_timestamp_seconds", {}, time.timestamp()
    for verdict in fleet.verdicts:
        profile = {"profile": verdict.profile}
        yield from of_values("bench_fleet_verdict", profile, "decision", Decision, verdict.decision)
        yield "bench_fleet_score_ratio", profile, verdict.score / FULL
    states = Counter(node.state for node in fleet.nodes)
    for state in State:
        yield "bench_fleet_nodes", {"state": state.value}, float(states[state])
    levels = Counter(_level(outlier) for outlier in fleet.outliers)
    for level in ("outlier", "suspect", "warn"):
        yield "bench_fleet_outliers", {"level": level}, float(levels[level])


def _node(node: NodeOutcome) -> Iterator[Sample]:
    yield from of_values("bench_fleet_node_state", {"host": node.host}, "state", State, node.state)
    about = {"host": node.host, "hostname": node.hostname, "class": node.node_class, "run": node.run}
    yield "bench_fleet_node_info", {name: text or "" for name, text in about.items()}, 1.0
    if node.score is not None:
        yield "bench_fleet_node_score_ratio", {"host": node.host}, node.score / FULL


def _pair(pair: PairOutcome) -> Iterator[Sample]:
    ends = {"client": pair.client, "server": pair.server}
    yield "bench_fleet_pair_measured", ends, float(pair.state is State.PASS)
    for way, rate in (("send", pair.send_bytes_per_second), ("receive", pair.receive_bytes_per_second)):
        if rate is not None:
            yield "bench_fleet_pair_throughput_bytes_per_second", {**ends, "direction": way}, rate


def _outlier(o: Outlier) -> Iterator[Sample]:
    labels = {"host": o.host, "part": o.part, "metric": o.metric, "selector": _selector(o.labels)}
    yield "bench_fleet_outlier_deviation_ratio", {**labels, "level": _level(o)}, o.deviation_ratio
    yield "bench_fleet_outlier_observed", labels, o.observed
    yield "bench_fleet_outlier_expected", labels, o.expected


def _level(o: Outlier) -> str:
    """What follows from it: ``outlier`` (NO-GO), ``suspect`` (INCONCLUSIVE), ``warn`` (nothing)."""
    return "warn" if o.level != "act" else "outlier" if o.confirmed else "suspect"


def _collective(found: Collective) -> Iterator[Sample]:
    yield "bench_fleet_collective_measured", {}, float(found.state is State.PASS)
    yield "bench_fleet_collective_ranks", {}, float(found.world or len(found.ranks))
    if found.bus_bytes_per_second is not None:
        yield "bench_fleet_collective_bus_bytes_per_second", {}, found.bus_bytes_per_second
    if found.straggler is not None and found.straggler_late_seconds is not None:
        yield "bench_fleet_collective_late_seconds", {"straggler": found.straggler}, found.straggler_late_seconds


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _shift_level(shift: Shift) -> str:
    """``regressed`` (NO-GO), ``suspect`` (INCONCLUSIVE), ``moved`` (nothing; a negative ratio is for the better)."""
    return "moved" if shift.level != "act" else "regressed" if shift.confirmed else "suspect"
