"""Prometheus text for node_exporter's textfile collector, or for a scrape of `bench export --listen`.

One text that both readers take: the classic exposition format 0.0.4 (node_exporter, promtool) and OpenMetrics 1.0
(``# UNIT`` and ``# EOF`` are comments to the first). So everything is a gauge: a fact is 1 with labels and a name in
``_info``, a state is 0 or 1 for each of its values, a time is in ``_timestamp_seconds``, as both formats advise.
Measurements keep the contract's names and their labels; what bench says of itself begins with ``bench_``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.judge.gate import FULL, share
from bench.model import Attribution, Decision, Finding, Measurement, Outcome, Run, Status
from bench.show.export import Export, ExportError
from bench.show.export.cases import ended
from bench.show.text import clean
from bench.units import unit_of

OWN = "bench_"
BOTTLENECKS = ("storage", "preprocess", "transfer", "loader", "accelerator", "undetermined")
#: What bench says of a run, beside its measurements. The alert rules, the board and the docs are made from these.
FAMILIES: Mapping[str, str] = {
    "bench_run_info": "The run that this is: id, node, effort, accelerator, version of bench. Always 1.",
    "bench_node_info": "Facts of the node that explain its figures. Always 1.",
    "bench_last_run_timestamp_seconds": "When the run's figures were complete, seconds since the epoch.",
    "bench_run_duration_seconds": "How long the run took.",
    "bench_verdict": "1 for the decision that the profile came to, 0 for the others.",
    "bench_score_ratio": "Share of its requirements that the profile's weakest required gate reached; 1 is full.",
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
_FACTS = ("kernel", "os", "architecture", "nvidia_driver", "governor")


def render(export: Export) -> str:
    """Raises ExportError when a measurement has a name that is bench's own."""
    families = {name: Family(text) for name, text in FAMILIES.items()}
    for name, labels, value in _own(export.run):
        families[name].add(labels, value)
    for result in export.run.results:
        for m in result.measurements:
            if m.metric in FAMILIES:
                raise ExportError(f"run {export.run.id}: a measurement may not be called {m.metric}")
            declared = export.metrics.get(m.metric)
            text = declared.help if declared else f"Measured by the probe {result.probe}."
            families.setdefault(m.metric, Family(text)).add(_labels(m), m.value)
    return written(families)


def _labels(m: Measurement) -> dict[str, str]:
    """The measurement's own, and ``invalid="true"`` where it must not be judged (a changing reason would be a new
    series with every run): a query that decides anything asks for ``invalid=""``.
    """
    return dict(m.labels) | ({"invalid": "true"} if m.invalid is not None else {})


def _own(run: Run) -> Iterator[Sample]:
    yield from _run(run)
    for verdict in run.verdicts:
        profile = {"profile": verdict.profile}
        yield from of_values("bench_verdict", profile, "decision", Decision, verdict.decision)
        yield "bench_score_ratio", profile, verdict.score / FULL
        for finding in verdict.findings:
            yield from _gate(profile, finding)
    for result in run.results:
        probe = {"probe": result.probe}
        yield from of_values("bench_probe_outcome", probe, "outcome", Outcome, result.outcome)
        yield "bench_probe_duration_seconds", probe, result.duration_seconds
    if run.attribution is not None:
        yield from _attribution(run.attribution)


def _run(run: Run) -> Iterator[Sample]:
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
    end = ended(run)
    if end is not None:
        yield "bench_last_run_timestamp_seconds", {}, end.timestamp()
    yield "bench_run_duration_seconds", {}, sum(result.duration_seconds for result in run.results)


def _gate(profile: Labels, finding: Finding) -> Iterator[Sample]:
    selector = ",".join(f"{key}={value}" for key, value in sorted(finding.labels.items()))
    bound, limit = ("min", finding.limit.min) if finding.limit.min is not None else ("max", finding.limit.max)
    labels = {**profile, "metric": finding.metric, "selector": selector, "required": str(finding.required).lower()}
    labels |= {"bound": bound, "limit": "" if limit is None else f"{limit!r}"}
    yield from of_values("bench_gate", labels, "status", Status, finding.status)
    if limit is not None:
        yield "bench_gate_limit", labels, limit
    if finding.observed is not None:
        yield "bench_gate_observed", labels, finding.observed
        yield "bench_gate_reached_ratio", labels, share(finding.observed, finding.limit) / FULL


def _attribution(found: Attribution) -> Iterator[Sample]:
    labels = {key: value for key, value in (("path", found.path), ("stand_in", found.stand_in)) if value}
    yield from of_values("bench_bottleneck", labels, "bottleneck", BOTTLENECKS, found.bottleneck)
    yield "bench_attribution_valid", labels, float(found.valid)
    numbers = {
        "bench_starved": None if found.starved is None else float(found.starved),
        "bench_demand_bytes_per_second": found.demand_bytes_per_second,
        "bench_supply_bytes_per_second": found.supply_bytes_per_second,
    }
    for name, value in numbers.items():
        if value is not None:  # absent is not zero
            yield name, labels, value


Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]


@dataclass(slots=True)
class Family:
    """One name: its help, and a value by labels."""

    help: str
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)

    def add(self, labels: Labels, value: float) -> None:
        """A second sample with the same labels would make the whole file unreadable: it is told apart."""
        key, number = _key(labels), 1
        while key in self.samples:
            number += 1
            key = _key({**labels, "again": str(number)})
        self.samples[key] = value


def _key(labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, clean(value, 500)) for name, value in labels.items()))


def of_values(name: str, labels: Labels, key: str, values: Iterable[str], now: str) -> Iterator[Sample]:
    for value in values:
        yield name, {**labels, key: str(value)}, float(value == now)


def written(families: Mapping[str, Family]) -> str:
    """The whole text; a family without a sample is left out."""
    return "".join(_family(name, family) for name, family in families.items() if family.samples) + "# EOF\n"


def _family(name: str, family: Family) -> str:
    unit = unit_of(name)
    lines = [f"# HELP {name} {_help(family.help)}", f"# TYPE {name} gauge"]
    if unit and unit != "info":
        lines.append(f"# UNIT {name} {unit}")
    lines += [f"{name}{_braces(key)} {_number(value)}" for key, value in family.samples.items()]
    return "\n".join(lines) + "\n"


def _braces(key: tuple[tuple[str, str], ...]) -> str:
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in key)
    return f"{{{inside}}}" if inside else ""


def _escape(value: str) -> str:
    """Label values: backslash, quote and newline, in this order (exposition formats)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help(text: str) -> str:
    return _escape(clean(text))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
