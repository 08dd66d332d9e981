"""docs/metrics.md and docs/profiles.md, so that they cannot drift from what is measured and judged."""

from __future__ import annotations

from collections.abc import Iterable

from bench.judge.profile import Gate, Profile
from bench.measure.probe import Probe
from bench.model import Metric
from bench.show.catalog import WHEN, labels_of, needs
from bench.show.export.markdown import table
from bench.show.export.openmetrics import FAMILIES, FLEET_FAMILIES

_MADE = "<!-- Made by `python -m tests.golden` from the declarations; changes made here are lost. -->"
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
    labels = ", ".join(f"`{label}`" if label in m.labels else f"`{label[:-1]}`*" for label in labels_of(m))
    better = "" if m.better == "none" else m.better
    points = m.unit == "ratio" and m.better == "lower"
    differ = "" if m.session_spread is None else f"{100.0 * m.session_spread:g} {'points' if points else '%'}"
    return f"`{m.name}`", m.unit.replace("_", " ") or "count", labels, better, differ, _cell(m.help)


def _gate_row(gate: Gate) -> tuple[str, ...]:
    labels = ", ".join(f"{key}={value}" for key, value in gate.labels.items())
    name = f"`{gate.metric}`" + (f"<br>{_cell(labels)}" if labels else "")
    decides, stand_in = ("yes" if flag else "no" for flag in (gate.required, gate.accept_stand_in))
    where = f"{decides}, {WHEN[gate.when]}" if gate.when else decides
    return name, _cell(needs(gate)), where, stand_in, _cell(gate.source), _cell(gate.remedy)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
