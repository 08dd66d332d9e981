"""The reference parts of the documentation, made from the declarations: every metric, every profile. Markdown.

A test holds the files in docs/ to what this makes, so they cannot drift from what is measured and judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench.judge.profile import Profile
from bench.model import Metric
from bench.show.export.grafana import Probe
from bench.show.export.openmetrics import FAMILIES
from bench.show.fleet_formats.openmetrics import FAMILIES as OF_A_FLEET
from bench.show.wording import needed

_MADE = "<!-- Made by `python -m tests.golden` from the declarations; changes made here are lost. -->"


def metrics_page(probes: Sequence[Probe]) -> str:
    """docs/metrics.md: every metric by probe, with unit, labels and direction, and what the export adds."""
    return "\n".join([*_metrics_head(), *(line for probe in probes for line in _probe(probe)), *_own()]) + "\n"


def _metrics_head() -> Iterator[str]:
    yield "# Every metric"
    yield ""
    yield _MADE
    yield ""
    yield (
        "Names end with the base unit; a name without one counts things. Files hold base units only, the screen and "
        "the report show people's units. A figure that something stood in for carries the label `stand_in` (`cpu`, "
        "`emulated`, `loopback`). A quantile is the label `statistic`. `bench probes` prints the same list for the "
        "version that is installed."
    )


def _probe(probe: Probe) -> Iterator[str]:
    yield ""
    yield f"## {probe.name}"
    yield ""
    yield _cell(probe.help)
    yield ""
    yield "| metric | unit | labels | better | what it is |"
    yield "| --- | --- | --- | --- | --- |"
    for m in probe.metrics:
        labels = ", ".join(f"`{label}`" for label in m.labels)
        yield f"| `{m.name}` | {_unit(m)} | {labels} | {_better(m)} | {_cell(m.help)} |"


def _unit(metric: Metric) -> str:
    return metric.unit.replace("_", " ") or "count"


def _better(metric: Metric) -> str:
    return "" if metric.better == "none" else metric.better


def _own() -> Iterator[str]:
    exports = (("`bench export`", "the run itself", FAMILIES), ("`bench fleet export`", "a fleet", OF_A_FLEET))
    for command, what, families in exports:
        yield ""
        yield f"## What the Prometheus text of {command} says of {what}"
        yield ""
        yield "| metric | what it is |"
        yield "| --- | --- |"
        for name, text in families.items():
            yield f"| `{name}` | {_cell(text)} |"


def profiles_page(profiles: Iterable[Profile]) -> str:
    """docs/profiles.md: every shipped profile, each limit with its source."""
    lines = [
        "# Every profile",
        "",
        _MADE,
        "",
        "Limits are starting points, each with its source. Copy a file of `bench/profiles/`, change it, and use it by "
        "`--profile FILE`. `bench profiles` prints the same for the version that is installed.",
    ]
    for profile in profiles:
        lines += ["", f"## {profile.name}", "", _cell(profile.description), ""]
        lines += [
            "| gate | needs | decides | a stand-in will do | source | when it fails |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for gate in profile.gates:
            labels = ", ".join(f"{key}={value}" for key, value in gate.labels.items())
            name = f"`{gate.metric}`" + (f"<br>{_cell(labels)}" if labels else "")
            cells = (
                name, _cell(needed(gate.limit, gate.metric)), _yes(gate.required), _yes(gate.accept_stand_in),
                _cell(gate.source), _cell(gate.remedy),
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
