"""What there is: the probes with their metrics and the profiles with their gates, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.judge.profile import Gate, Profile
from bench.measure.probe import Probe
from bench.model import Metric
from bench.show.text import clean, hang
from bench.show.wording import needed

_WIDTH = 100
WHEN = {
    "rdma": "on nodes with RDMA",
    "no_rdma": "on nodes without RDMA",
    "endpoint": "with --endpoint",
    "no_endpoint": "without --endpoint",
}


def probes_table(found: Iterable[Probe]) -> str:
    """For each probe its help, then a line for each metric: name, unit, labels, help. Ends with a newline."""
    return "\n\n".join("\n".join(_probe(probe)) for probe in found) + "\n"


def profiles_table(found: Iterable[Profile]) -> str:
    """For each profile its description and its gates: limit, whether required, source. Ends with a newline."""
    return "\n\n".join("\n".join(_profile(profile)) for profile in found) + "\n"


def _probe(probe: Probe) -> Iterator[str]:
    yield from hang(f"{probe.name}: {clean(probe.help)}", _WIDTH, 0)
    for option in probe.options:
        yield from hang(f"--option {probe.name}.{option.name}: {clean(option.summary)}", _WIDTH, 2)
    for metric in probe.metrics:
        labels = f"  {{{', '.join(labels_of(metric))}}}" if metric.labels else ""
        yield from hang(f"{metric.name}{labels}", _WIDTH, 2)
        better = "" if metric.better == "none" else f"; {metric.better} is better"
        yield from hang(f"{metric.unit or 'a count'}{better}: {clean(metric.help)}", _WIDTH, 6)


def labels_of(metric: Metric) -> Iterator[str]:
    """Its labels, an asterisk behind those that tell what was found."""
    return (f"{label}*" if label in metric.varying else label for label in metric.labels)


def _profile(profile: Profile) -> Iterator[str]:
    yield from hang(f"{clean(profile.name)}: {clean(profile.description)}", _WIDTH, 0)
    for gate in profile.gates:
        yield from hang(_gate(gate), _WIDTH, 2)
        yield from hang(clean(gate.source), _WIDTH, 6)


def _gate(gate: Gate) -> str:
    labels = ", ".join(f"{key}={clean(value)}" for key, value in gate.labels.items())
    notes = ("" if gate.required else "  optional") + ("  a stand-in will do" if gate.accept_stand_in else "")
    notes += f"  {WHEN[gate.when]}" if gate.when else ""
    return f"{gate.metric}{f' {{{labels}}}' if labels else ''}  {needs(gate)}{notes}"


def needs(gate: Gate) -> str:
    return needed(gate.limit, gate.metric) + (" for each accelerator" if gate.per else "")
