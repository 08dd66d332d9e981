"""Prometheus text for node_exporter's textfile collector, or for a scrape of `bench export --listen`.

One text that both readers take: the classic exposition format 0.0.4 (node_exporter, promtool) and OpenMetrics 1.0
(``# UNIT`` and ``# EOF`` are comments to the first). So everything is a gauge: a fact is 1 with labels and a name in
``_info``, a state is 0 or 1 for each of its values, a time is in ``_timestamp_seconds``, as both formats advise.
Measurements keep the contract's names and their labels; what bench says of itself begins with ``bench_``, of a fleet
with ``bench_fleet_``, so that both texts can lie side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import get_args

from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest

from bench.judge.fleet.model import Collective, Fleet, NodeOutcome, Outlier, PairOutcome, State
from bench.judge.gate import FULL, share
from bench.model import Attribution, Bottleneck, Decision, Finding, Outcome, Run, Status, unit_of
from bench.show.export import Export, ExportError
from bench.show.export.cases import consequence
from bench.show.text import clean
from bench.show.wording import bound_of, ended, moment

Labels = Mapping[str, str]
#: Name, labels and value; what nobody measured has None, and is not written: absent is not zero.
Sample = tuple[str, Labels, float | None]
#: What bench says of a run, beside its measurements. The alert rules, the board and the docs are made from these.
FAMILIES: Mapping[str, str] = {
    "bench_run_info": "The run that this is: id, node, effort, accelerator, version of bench. Always 1.",
    "bench_node_info": "Facts of the node that explain its figures. Always 1.",
    "bench_last_run_timestamp_seconds": "When the run's figures were complete, seconds since the epoch.",
    "bench_run_duration_seconds": "How long the run took.",
    "bench_run_signed": "1 when a signed statement lies beside the run, else 0; if it holds says `bench verify`.",
    "bench_verdict": "1 for the decision that the profile came to, 0 for the others.",
    "bench_score_ratio": "Share of its requirements that the profile's weakest required gate reached; 1 is full.",
    "bench_required_gates": "How many gates of the profile decide on this node.",
    "bench_measured_gates": "How many of those have a figure that counts.",
    "bench_weakest_measured_score_ratio": "The lowest share of its requirement that one of the measured gates reached.",
    "bench_gate": "1 for the status that the gate came to, 0 for the others.",
    "bench_gate_observed": "The number that decided the gate, in the base unit of the gate's metric.",
    "bench_gate_limit": "The gate's limit, in the base unit of the gate's metric.",
    "bench_gate_reached_ratio": "Share of the gate's requirement that was reached; 1 keeps the limit.",
    "bench_probe_outcome": "1 for the outcome of the probe, 0 for the others.",
    "bench_probe_duration_seconds": "How long the probe took.",
    "bench_bottleneck": "1 for what the accelerator waited for, 0 for the others.",
    "bench_starved": "1 when storage starves the accelerator by more than the profile allows, else 0.",
    "bench_attribution_valid": "1 when the conditions of the starvation measurement held, else 0.",
    "bench_demand_bytes_per_second": "What the accelerator would consume if it were never kept waiting.",
    "bench_supply_bytes_per_second": "What the path delivers.",
}
#: The same for a fleet. The nodes' own measurements are in their own runs' exports.
FLEET_FAMILIES: Mapping[str, str] = {
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
    "bench_fleet_pair_rdma_bytes_per_second": "What the client wrote to the server by RDMA.",
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
_FACTS = ("kernel", "os", "architecture", "nvidia_driver", "governor")


def render(export: Export) -> bytes:
    """Raises ExportError when a measurement has a name that is bench's own."""
    document = export.document
    if isinstance(document, Fleet):
        return _written(FLEET_FAMILIES, _of_fleet(document))
    helps, measured = dict(FAMILIES), []
    for result in document.results:
        for m in result.measurements:
            if m.metric in FAMILIES:
                raise ExportError(f"run {document.id}: a measurement may not be called {m.metric}")
            declared = export.metrics.get(m.metric)
            helps.setdefault(m.metric, declared.help if declared else f"Measured by the probe {result.probe}.")
            # A reason in the label would make a new series.
            labels = m.labels if m.invalid is None else {**m.labels, "invalid": "true"}
            measured.append((m.metric, labels, m.value))
    signed = None if export.signed is None else float(export.signed)
    return _written(helps, [*_of_run(document), ("bench_run_signed", {}, signed), *measured])


def _written(helps: Mapping[str, str], samples: Iterable[Sample]) -> bytes:
    """The whole text, a family for each of ``helps`` in that order; one without a sample is left out."""
    families: dict[str, Family] = {}
    seen = set()
    for name, help_text in helps.items():
        families[name] = Family(name, clean(help_text), "gauge")
        families[name].unit = unit if (unit := unit_of(name)) != "info" else ""
    for name, labels, value in samples:
        if value is None:
            continue
        cleaned, number = {key: clean(text, 500) for key, text in labels.items()}, 1
        while (key := (name, *sorted(cleaned.items()))) in seen:  # twice the same would make the whole file unreadable
            number += 1
            cleaned["again"] = str(number)
        seen.add(key)
        families[name].add_sample(name, cleaned, value)
    collector = SimpleNamespace(collect=lambda: [family for family in families.values() if family.samples])
    written: bytes = generate_latest(collector)  # type: ignore[no-untyped-call]
    return written


def _of_values(name: str, labels: Labels, key: str, values: Iterable[str], now: str) -> Iterator[Sample]:
    """A state: 1 for the value that it has now, 0 for the others."""
    return ((name, {**labels, key: str(value)}, float(value == now)) for value in values)


def _seconds(time: datetime | None) -> float | None:
    return time.timestamp() if time else None


def _selector(labels: Labels) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _of_run(run: Run) -> Iterator[Sample]:
    yield from _run_itself(run)
    for verdict in run.verdicts:
        profile = {"profile": verdict.profile}
        yield from _of_values("bench_verdict", profile, "decision", Decision, verdict.decision)
        yield "bench_score_ratio", profile, verdict.score / FULL
        yield "bench_required_gates", profile, verdict.required
        yield "bench_measured_gates", profile, verdict.measured
        weakest = verdict.weakest_measured_score
        yield "bench_weakest_measured_score_ratio", profile, None if weakest is None else weakest / FULL
        for finding in verdict.findings:
            yield from _gate(profile, finding)
    for result in run.results:
        probe = {"probe": result.probe}
        yield from _of_values("bench_probe_outcome", probe, "outcome", Outcome, result.outcome)
        yield "bench_probe_duration_seconds", probe, result.duration_seconds
    if run.attribution is not None:
        yield from _attribution(run.attribution)


def _run_itself(run: Run) -> Iterator[Sample]:
    about = {
        "id": run.id,
        "hostname": run.node.hostname,
        "fingerprint": run.node.fingerprint,
        "effort": run.request.effort.value,
        "accelerator": run.request.accelerator,
        "version": run.bench_version or "",
        "replay_of": run.replay_of or "",
    }
    yield "bench_run_info", about, 1.0
    facts = {name: str(value) for name in _FACTS if isinstance(value := run.node.facts.get(name), str | int | float)}
    gpus = run.node.facts.get("gpus")
    gpus = [str(gpu) for gpu in gpus] if isinstance(gpus, list | tuple) else []
    yield "bench_node_info", facts | {"gpus": str(len(gpus)), "gpu": ", ".join(dict.fromkeys(gpus))}, 1.0
    yield "bench_last_run_timestamp_seconds", {}, _seconds(ended(run))
    yield "bench_run_duration_seconds", {}, sum(result.duration_seconds for result in run.results)


def _gate(profile: Labels, finding: Finding) -> Iterator[Sample]:
    (bound, limit), found = bound_of(finding.limit), finding.observed
    labels = {
        **profile,
        "metric": finding.metric,
        "selector": _selector(finding.labels),
        "required": str(finding.required).lower(),
        "bound": bound,
        "limit": "" if limit is None else f"{limit!r}",
    }
    yield from _of_values("bench_gate", labels, "status", Status, finding.status)
    yield "bench_gate_limit", labels, limit
    yield "bench_gate_observed", labels, found
    yield "bench_gate_reached_ratio", labels, None if found is None else share(found, finding.limit) / FULL


def _attribution(found: Attribution) -> Iterator[Sample]:
    labels = {key: value for key, value in (("path", found.path), ("stand_in", found.stand_in)) if value}
    yield from _of_values("bench_bottleneck", labels, "bottleneck", get_args(Bottleneck), found.bottleneck)
    yield "bench_attribution_valid", labels, float(found.valid)
    yield "bench_starved", labels, None if found.starved is None else float(found.starved)
    yield "bench_demand_bytes_per_second", labels, found.demand_bytes_per_second
    yield "bench_supply_bytes_per_second", labels, found.supply_bytes_per_second


def _of_fleet(fleet: Fleet) -> Iterator[Sample]:
    yield from _whole(fleet)
    for samples in (*map(_node, fleet.nodes), *map(_pair, fleet.pairs), *map(_outlier, fleet.outliers)):
        yield from samples
    for shift in fleet.shifts:
        labels = {"class": shift.node_class, "metric": shift.metric, "selector": _selector(shift.labels)}
        yield "bench_fleet_shift_ratio", {**labels, "level": consequence(shift)}, shift.shift_ratio
    if fleet.collective is not None:
        yield from _collective(fleet.collective)
    for one in fleet.shared:
        for way, rates in (("alone", one.alone), ("together", one.together)):
            for host, rate in rates.items():
                yield "bench_fleet_shared_bytes_per_second", {"path": one.path, "host": host, "way": way}, rate


def _whole(fleet: Fleet) -> Iterator[Sample]:
    yield "bench_fleet_info", {"id": fleet.id, "version": fleet.bench_version or ""}, 1.0
    yield "bench_fleet_joined_timestamp_seconds", {}, _seconds(moment(fleet.joined_at))
    yield "bench_fleet_measured_timestamp_seconds", {}, _seconds(moment(fleet.measured_at))
    for verdict in fleet.verdicts:
        profile = {"profile": verdict.profile}
        yield from _of_values("bench_fleet_verdict", profile, "decision", Decision, verdict.decision)
        yield "bench_fleet_score_ratio", profile, verdict.score / FULL
    states = Counter(node.state for node in fleet.nodes)
    for state in State:
        yield "bench_fleet_nodes", {"state": state.value}, float(states[state])
    levels = Counter(consequence(outlier) for outlier in fleet.outliers)
    for level in ("outlier", "suspect", "warn"):
        yield "bench_fleet_outliers", {"level": level}, float(levels[level])


def _node(node: NodeOutcome) -> Iterator[Sample]:
    yield from _of_values("bench_fleet_node_state", {"host": node.host}, "state", State, node.state)
    about = {"host": node.host, "hostname": node.hostname, "class": node.node_class, "run": node.run}
    yield "bench_fleet_node_info", {name: text or "" for name, text in about.items()}, 1.0
    yield "bench_fleet_node_score_ratio", {"host": node.host}, None if node.score is None else node.score / FULL


def _pair(pair: PairOutcome) -> Iterator[Sample]:
    ends = {"client": pair.client, "server": pair.server}
    yield "bench_fleet_pair_measured", ends, float(pair.state is State.PASS)
    for way, rate in (("send", pair.send_bytes_per_second), ("receive", pair.receive_bytes_per_second)):
        yield "bench_fleet_pair_throughput_bytes_per_second", {**ends, "direction": way}, rate
    yield "bench_fleet_pair_rdma_bytes_per_second", ends, pair.rdma_bytes_per_second


def _outlier(o: Outlier) -> Iterator[Sample]:
    labels = {"host": o.host, "part": o.part, "metric": o.metric, "selector": _selector(o.labels)}
    yield "bench_fleet_outlier_deviation_ratio", {**labels, "level": consequence(o)}, o.deviation_ratio
    yield "bench_fleet_outlier_observed", labels, o.observed
    yield "bench_fleet_outlier_expected", labels, o.expected


def _collective(found: Collective) -> Iterator[Sample]:
    yield "bench_fleet_collective_measured", {}, float(found.state is State.PASS)
    yield "bench_fleet_collective_ranks", {}, float(found.world or len(found.ranks))
    yield "bench_fleet_collective_bus_bytes_per_second", {}, found.bus_bytes_per_second
    if found.straggler is not None:
        yield "bench_fleet_collective_late_seconds", {"straggler": found.straggler}, found.straggler_late_seconds
