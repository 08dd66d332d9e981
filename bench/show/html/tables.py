"""The report's tables, as rows of plain text that the template escapes: of one run, and of several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.judge.baseline.comparison import Difference
from bench.judge.latency_budget import response
from bench.model import Measurement, ProbeResult, Run
from bench.show import wording
from bench.show.text import clean
from bench.units import human

Row = Sequence[str]
#: What tells one series from another for a reader: not the path, which the page names, and not the stand-in.
_HIDDEN = ("path", "stand_in")


def about(run: Run) -> list[tuple[str, str]]:
    """What the figures stand on."""
    facts = run.node.facts
    asked = clean(run.request.accelerator, 60)
    found = {
        "accelerator": ", ".join(dict.fromkeys(wording.gpus(run))) or f"asked for {asked}, no GPU found",
        "stand-ins": ", ".join(wording.stand_ins(run)),
        "effort": run.request.effort.value,
        "storage": ", ".join(clean(path, 80) for path in run.request.storage),
        "peers": ", ".join(clean(peer, 80) for peer in run.request.peers),
        "kernel": clean(str(facts.get("kernel") or ""), 80),
        "system": clean(str(facts.get("os") or ""), 80),
        "driver": clean(str(facts.get("nvidia_driver") or ""), 80),
        "fingerprint": clean(run.node.fingerprint, 40),
        "measured by": f"aiready-bench {clean(run.bench_version or 'unknown', 40)}",
        "replay of": clean(run.replay_of or "", 60),
        "interrupted by signal": "" if run.interrupted_by is None else str(run.interrupted_by),
    }
    return [(name, text) for name, text in found.items() if text]


def health(run: Run) -> list[dict[str, Any]]:
    """The whole answer, the GPUs, the node in each stage: heading, header and rows, or why there are none."""
    return [_response_table(run), _gpu_table(run), _host_table(run)]


def _response_table(run: Run) -> dict[str, Any]:
    """Network and model put together (`bench.judge.latency_budget`): the stored answer, else composed now."""
    names = ("response_seconds", "response_over_budget_ratio", "response_left_seconds", "response_part_ratio")
    found = [m for m in run.measurements() if m.metric in names] or response(run)
    ends = dict.fromkeys(m.labels.get("until", "") for m in found)
    return {
        "heading": "A whole answer against the 200 ms budget",
        "header": ["until", "p50", "p99", "over the budget", "left at p99", "shares of the mean", ""],
        "rows": [_answer(end, [m for m in found if m.labels.get("until", "") == end]) for end in ends],
        "empty": "Network or model was not measured, so there is no whole answer.",
    }


def _answer(until: str, found: Sequence[Measurement]) -> Row:
    def one(metric: str, **labels: str) -> str:
        same = [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]
        return wording.quantity(same[0].value, same[0].interval, metric) if same else "–"

    shares = [m for m in found if m.metric == "response_part_ratio"]
    doubt = next((m.stand_in for m in found if m.stand_in), None)
    notes = [f"stand-in: {clean(doubt, 40)}"] if doubt else []
    notes += ["for the record only"] if any(m.invalid is not None for m in found) else []
    return [
        until.replace("_", " "),
        one("response_seconds", statistic="p50"),
        one("response_seconds", statistic="p99"),
        one("response_over_budget_ratio"),
        one("response_left_seconds"),
        ", ".join(f"{clean(m.labels.get('part', ''), 40)} {human(m.value, m.metric)}" for m in shares),
        ", ".join(notes),
    ]


def _gpu_table(run: Run) -> dict[str, Any]:
    results = [r for r in run.results if r.probe.startswith("gpu")]
    found = [m for r in results for m in r.measurements]
    devices = sorted({m.labels.get("device", "") for m in found})
    rows: dict[str, dict[str, str]] = {}
    for m in found:
        name = wording.series_name(m.metric, m.labels, ("device", "stand_in", "uuid", "bus"))
        rows.setdefault(name, {})[m.labels.get("device", "")] = human(m.value, m.metric)
    reasons = [f"{r.probe} {r.outcome.value}: {wording.reason_text(r.reason)}" for r in results if r.reason]
    return {
        "heading": "Accelerators: health and telemetry",
        "header": ["", *(f"device {clean(device, 20)}" for device in devices)],
        "rows": [[name, *(cells.get(device, "–") for device in devices)] for name, cells in rows.items()],
        "empty": "; ".join(reasons) or "No probe watched a GPU in this run.",
    }


#: Column -> metric, and the label that tells its resource where it has one.
_HOST = {
    "CPU busy": ("host_cpu_busy_ratio", {}),
    "CPU stolen": ("host_cpu_steal_ratio", {}),
    "waits for CPU": ("host_pressure_ratio", {"resource": "cpu", "kind": "some"}),
    "waits for I/O": ("host_pressure_ratio", {"resource": "io", "kind": "some"}),
    "waits for memory": ("host_pressure_ratio", {"resource": "memory", "kind": "some"}),
    "disk reads": ("host_disk_read_bytes_per_second", {}),
    "memory left": ("host_memory_available_bytes", {}),
}


def _host_table(run: Run) -> dict[str, Any]:
    def cell(stage: str, metric: str, labels: Mapping[str, str]) -> str:
        found = run.find(metric, stage=stage, **labels)
        return human(found[0].value, metric) if found else "–"

    stages = dict.fromkeys(m.labels.get("stage", "") for m in run.measurements() if m.metric.startswith("host_"))
    rows = [[clean(stage, 40), *(cell(stage, *column) for column in _HOST.values())] for stage in stages]
    empty = "The node was not watched in this run."
    return {"heading": "The node in each stage", "header": ["stage", *_HOST], "rows": rows, "empty": empty}


def figures(result: ProbeResult) -> list[Row]:
    """Every measurement of a probe: metric, labels, value with its interval, samples."""
    return [
        [
            m.metric,
            ", ".join(f"{key}={clean(value, 60)}" for key, value in m.labels.items() if key != "path"),
            wording.quantity(m.value, m.interval, m.metric),
            str(m.samples),
            "for the record only" if m.invalid is not None else "",
        ]
        for m in result.measurements
    ]


def comparison(runs: Sequence[Run], differences: Sequence[Difference] | None = None) -> dict[str, Any]:
    """Verdicts side by side, facts of the nodes that differ, figures that differ by more than noise."""
    hosts = [clean(run.node.hostname, 60) for run in runs]
    profiles = dict.fromkeys(v.profile for run in runs for v in run.verdicts)
    apart = "Their 95 % intervals have no point in common. What is for the record only is left out."
    return {
        "hosts": hosts,
        "verdicts": {
            profile: [next((v for v in run.verdicts if v.profile == profile), None) for run in runs]
            for profile in profiles
        },
        "facts": list(_facts(runs)),
        "header": ["figure", *hosts, *([] if differences is None else ["change", "", "by"])],
        "figures": list(_apart(runs) if differences is None else _compared(differences)),
        "basis": apart if differences is None else "",
    }


def _compared(differences: Sequence[Difference]) -> Iterator[Row]:
    for d in differences:
        if d.verdict != "same":
            change = "" if d.change_ratio is None else f"{100 * d.change_ratio:+.1f} %"
            name, a, b = wording.series_name(d.metric, d.labels, _HIDDEN), human(d.a, d.metric), human(d.b, d.metric)
            yield [name, a, b, change, d.verdict, clean(d.basis)]


def _facts(runs: Sequence[Run]) -> Iterator[Row]:
    flat = [dict(_flat(run.node.facts)) for run in runs]
    for name in dict.fromkeys(name for facts in flat for name in facts):
        values = [facts.get(name, "–") for facts in flat]
        if len(set(values)) > 1 and name.split(".")[0] not in ("boot_id", "machine_id"):
            yield [name, *values]


def _flat(facts: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        name = f"{before}{clean(str(key), 80)}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, clean(str(value), 120)


def _apart(runs: Sequence[Run]) -> Iterator[Row]:
    """Two figures differ when their 95 % intervals have no point in common. Those for the record only do not count."""
    tables = [
        {(m.metric, *sorted(m.labels.items())): m for m in run.measurements() if m.invalid is None} for run in runs
    ]
    for key in dict.fromkeys(key for table in tables for key in table):
        found = [table.get(key) for table in tables]
        known = [m for m in found if m is not None]
        if len(known) > 1 and max(m.interval[0] for m in known) > min(m.interval[1] for m in known):
            name = wording.series_name(known[0].metric, dict(sorted(known[0].labels.items())), _HIDDEN)
            yield [name, *("–" if m is None else wording.quantity(m.value, m.interval, m.metric) for m in found)]
