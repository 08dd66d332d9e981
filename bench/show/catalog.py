"""What there is: the probes with their metrics and the profiles with their gates, for a terminal and for the docs.

A test holds docs/metrics.md and docs/profiles.md to what this makes, so they cannot drift from what is measured and
judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.judge.profile import Gate, Profile
from bench.measure.probe import Probe
from bench.model import Metric
from bench.show.text import clean, hang
from bench.show.wording import needed

_WIDTH = 100
_WHEN = {
    "rdma": "on nodes with RDMA",
    "no_rdma": "on nodes without RDMA",
    "endpoint": "with --endpoint",
    "no_endpoint": "without --endpoint",
}
_MADE = "<!-- Made by `python -m tests.golden` from the declarations; changes made here are lost. -->"


# --- plain text


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
        labels = f"  {{{', '.join(_labels(metric))}}}" if metric.labels else ""
        yield from hang(f"{metric.name}{labels}", _WIDTH, 2)
        better = "" if metric.better == "none" else f"; {metric.better} is better"
        yield from hang(f"{metric.unit or 'a count'}{better}: {clean(metric.help)}", _WIDTH, 6)


def _labels(metric: Metric) -> Iterator[str]:
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
    notes += f"  {_WHEN[gate.when]}" if gate.when else ""
    return f"{gate.metric}{f' {{{labels}}}' if labels else ''}  {_needs(gate)}{notes}"


def _needs(gate: Gate) -> str:
    return needed(gate.limit, gate.metric) + (" for each accelerator" if gate.per else "")


# --- Markdown

_METRICS = (
    "Names end with the base unit; a name without one counts things. Files hold base units only, the screen and "
    "the report show people's units. A figure that something stood in for carries the label `stand_in` (`cpu`, "
    "`emulated`, `loopback`). A quantile is the label `statistic`. A label with an asterisk tells what was found: it "
    "is the same series whatever it says. *Sessions*: by how much whole sessions of a sound node are taken to differ "
    "until seven nights of its own say it ([error rates](error-rates.md)). `bench probes` prints the same list for the "
    "version that is installed."
)
_PROFILES = (
    "Limits are starting points, each with its source. Copy a file of `bench/profiles/`, change it, and use it by "
    "`--profile FILE`. `bench profiles` prints the same for the version that is installed."
)


def metrics_page(probes: Iterable[Probe]) -> str:
    """docs/metrics.md: every metric by probe, with unit, labels and direction, and what the export adds."""
    from bench.show.export.markdown import table
    from bench.show.export.openmetrics import FAMILIES, FLEET_FAMILIES

    lines = ["# Every metric", "", _MADE, "", *_shell("bench probes"), "", _METRICS]
    for probe in probes:
        lines += ["", f"## {probe.name}", "", _cell(probe.help), ""]
        lines += table(("metric", "unit", "labels", "better", "sessions", "what it is"), map(_metric, probe.metrics))
        sources = dict.fromkeys(m.session_source for m in probe.metrics if m.session_source)
        lines += [line for source in sources for line in ("", f"Sessions: {_cell(source)}")]
    exports = (("`bench export`", "the run itself", FAMILIES), ("`bench fleet export`", "a fleet", FLEET_FAMILIES))
    for command, what, families in exports:
        lines += ["", f"## What the Prometheus text of {command} says of {what}", ""]
        lines += table(("metric", "what it is"), ((f"`{name}`", _cell(text)) for name, text in families.items()))
    return "\n".join(lines) + "\n"


def profiles_page(profiles: Iterable[Profile]) -> str:
    """docs/profiles.md: every shipped profile, each limit with its source."""
    from bench.show.export.markdown import table

    header = ("gate", "needs", "decides", "a stand-in will do", "source", "when it fails")
    lines = ["# Every profile", "", _MADE, "", *_shell("bench profiles"), "", _PROFILES]
    for profile in profiles:
        lines += ["", f"## {profile.name}", "", _cell(profile.description), ""]
        lines += table(header, map(_gate_row, profile.gates))
    return "\n".join(lines) + "\n"


def _shell(command: str) -> tuple[str, ...]:
    """A block with the command whose answer the page holds."""
    return "```sh", command, "```"


def _metric(m: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" if label in m.labels else f"`{label[:-1]}`*" for label in _labels(m))
    better = "" if m.better == "none" else m.better
    points = m.unit == "ratio" and m.better == "lower"
    differ = "" if m.session_spread is None else f"{100.0 * m.session_spread:g} {'points' if points else '%'}"
    return f"`{m.name}`", m.unit.replace("_", " ") or "count", labels, better, differ, _cell(m.help)


def _gate_row(gate: Gate) -> tuple[str, ...]:
    labels = ", ".join(f"{key}={value}" for key, value in gate.labels.items())
    name = f"`{gate.metric}`" + (f"<br>{_cell(labels)}" if labels else "")
    decides, stand_in = ("yes" if flag else "no" for flag in (gate.required, gate.accept_stand_in))
    where = f"{decides}, {_WHEN[gate.when]}" if gate.when else decides
    return name, _cell(_needs(gate)), where, stand_in, _cell(gate.source), _cell(gate.remedy)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
