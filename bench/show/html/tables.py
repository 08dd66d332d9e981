"""The report's tables, as rows of plain text that the template escapes: of one run, and of several side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.judge.baseline.comparison import Difference
from bench.judge.latency_budget import response
from bench.model import Decision, Finding, Measurement, Run, Status, Verdict
from bench.show.text import clean
from bench.show.wording import (
    OUTCOME,
    STATUS,
    against_limit,
    gate_name,
    gpus,
    margin,
    needed,
    observed,
    plural,
    quantity,
    reason_text,
    score,
    series_name,
    stand_ins,
    when,
)
from bench.units import human

Row = Sequence[str]
_MOST_DIFFERENCES = 60
#: What tells one series from another for a reader: not the path, which the page names, and not the stand-in.
_HIDDEN = ("path", "stand_in")
_ORDER = (Status.FAIL, Status.UNDECIDED, Status.NO_DATA, Status.PASS)
_PATHS = ("path",)


def about(run: Run) -> list[tuple[str, str]]:
    """What the figures stand on."""
    facts = run.node.facts
    asked = clean(run.request.accelerator, 60)
    found = {
        "accelerator": ", ".join(dict.fromkeys(gpus(run.node))) or f"asked for {asked}, no GPU found",
        "stand-ins": ", ".join(stand_ins(run)),
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


def verdict(found: Verdict, description: str, proved: Sequence[str] = ()) -> dict[str, Any]:
    """One card: the decision, the score, why, what else was ``proved``, and every gate in a table."""
    gates = sorted(found.findings, key=lambda f: (_ORDER.index(f.status), not f.required))
    return {
        "profile": clean(found.profile, 80),
        "description": clean(description, 300),
        "decision": found.decision.value,
        "score": score(found.score),
        "why": _why(found),
        "proved": [f"{text[:1].upper()}{text[1:]}." for text in proved],
        "gates": [_gate(f) for f in gates],
    }


def _why(found: Verdict) -> str:
    required = [f for f in found.findings if f.required]
    bad = [f for f in required if f.status is not Status.PASS]
    if not bad:
        return f"{plural(len(required), 'required gate')}, and every one passed."
    failed = [f for f in bad if f.status is Status.FAIL]
    if found.decision is Decision.NO_GO and failed:
        worst = failed[0]
        more = f", and {plural(len(failed) - 1, 'more gate')} failed" if len(failed) > 1 else ""
        return f"{_sentence(worst)}{more}."
    return f"{plural(len(bad), 'required gate')} could not be decided: {gate_name(bad[0])}: {_reason(bad[0])}."


def _sentence(finding: Finding) -> str:
    name, far = gate_name(finding), margin(finding)
    return f"{name[:1].upper()}{name[1:]} is {against_limit(finding)}" + (f" ({far})" if far else "")


def _reason(finding: Finding) -> str:
    return reason_text(finding.reason or STATUS[finding.status]).rstrip(".")


def _gate(f: Finding) -> dict[str, str]:
    return {
        "name": gate_name(f),
        "observed": observed(f),
        "needed": needed(f.limit, f.metric),
        "margin": margin(f),
        "status": STATUS[f.status],
        "reason": reason_text(f.reason),
        "remedy": clean(f.remedy) if f.status is not Status.PASS else "",
        "source": clean(f.source),
    }


# --- health


def health(run: Run) -> list[dict[str, Any]]:
    """The whole answer's budget, the GPUs before and after, the node in each stage: heading, header and rows, or why
    there are none.
    """
    return [_response_table(run), _gpu_table(run), _host_table(run)]


_RESPONSE = ["until", "p50", "p99", "over the budget", "left at p99", "shares of the mean", ""]


def _response_table(run: Run) -> dict[str, Any]:
    """Network and model put together (`bench.judge.latency_budget`): the stored answer, else composed now."""
    names = ("response_seconds", "response_over_budget_ratio", "response_left_seconds", "response_part_ratio")
    found = [m for m in run.measurements() if m.metric in names] or response(run)
    ends = dict.fromkeys(m.labels.get("until", "") for m in found)
    return {
        "heading": "A whole answer against the 200 ms budget",
        "header": _RESPONSE,
        "rows": [_answer(end, [m for m in found if m.labels.get("until", "") == end]) for end in ends],
        "empty": "Network or model was not measured, so there is no whole answer.",
    }


def _answer(until: str, found: Sequence[Measurement]) -> Row:
    def one(metric: str, **labels: str) -> str:
        same = [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]
        return quantity(same[0].value, same[0].interval, metric) if same else "–"

    shares = [m for m in found if m.metric == "response_part_ratio"]
    doubt = next((m.stand_in for m in found if m.stand_in), None)
    notes = [f"stand-in: {clean(doubt, 40)}"] if doubt else []
    notes += ["for the record only"] if any(m.invalid is not None for m in found) else []
    return [
        " ".join(until.split("_")),
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
        name = series_name(m.metric, m.labels, ("device", "stand_in", "uuid", "bus"))
        rows.setdefault(name, {})[m.labels.get("device", "")] = human(m.value, m.metric)
    reasons = [f"{r.probe} {r.outcome.value}: {reason_text(r.reason)}" for r in results if r.reason]
    return {
        "heading": "Accelerators: health and telemetry",
        "header": ["", *(f"device {clean(device, 20)}" for device in devices)],
        "rows": [[name, *(cells.get(device, "–") for device in devices)] for name, cells in rows.items()],
        "empty": "; ".join(reasons) or "No probe watched a GPU in this run.",
    }


_HOST: tuple[tuple[str, dict[str, str]], ...] = (
    ("host_cpu_busy_ratio", {}),
    ("host_cpu_steal_ratio", {}),
    ("host_pressure_ratio", {"resource": "cpu", "kind": "some"}),
    ("host_pressure_ratio", {"resource": "io", "kind": "some"}),
    ("host_pressure_ratio", {"resource": "memory", "kind": "some"}),
    ("host_disk_read_bytes_per_second", {}),
    ("host_memory_available_bytes", {}),
)
_HOST_HEADER = ["stage", "CPU busy", "CPU stolen", "waits for CPU", "waits for I/O", "waits for memory", "disk reads",
                "memory left"]  # fmt: skip


def _host_table(run: Run) -> dict[str, Any]:
    found = [m for m in run.measurements() if m.metric.startswith("host_")]
    stages = list(dict.fromkeys(m.labels.get("stage", "") for m in found))
    rows = [
        [clean(stage, 40), *(_of_stage(found, stage, metric, labels) for metric, labels in _HOST)] for stage in stages
    ]
    empty = "The node was not watched in this run."
    return {"heading": "The node in each stage", "header": _HOST_HEADER, "rows": rows, "empty": empty}


def _of_stage(found: Iterable[Measurement], stage: str, metric: str, labels: dict[str, str]) -> str:
    wanted = {"stage": stage, **labels}.items()
    return next((human(m.value, metric) for m in found if m.metric == metric and wanted <= m.labels.items()), "–")


# --- every figure


def figures(run: Run) -> list[dict[str, Any]]:
    """Every measurement, by probe, with the raw output that it came from."""
    return [
        {
            "probe": r.probe,
            "outcome": OUTCOME[r.outcome],
            "seconds": f"{r.duration_seconds:.1f} s",
            "rows": [_figure(m) for m in r.measurements],
            "evidence": [(clean(e.path, 200), e.sha256[:16]) for e in r.evidence],
        }
        for r in run.results
    ]


def _figure(m: Measurement) -> Row:
    words = ", ".join(f"{key}={clean(value, 60)}" for key, value in m.labels.items() if key not in _PATHS)
    shown = quantity(m.value, m.interval, m.metric)
    return [m.metric, words, shown, str(m.samples), "for the record only" if m.invalid is not None else ""]


# --- several runs


def comparison(runs: Sequence[Run], differences: Sequence[Difference] | None = None) -> dict[str, Any]:
    """Verdicts side by side, facts of the nodes that differ, figures that differ by more than noise."""
    apart = list(_differences(runs)) if differences is None else list(_compared(differences))
    return {
        "heads": [[clean(run.node.hostname, 60), when(run.started_at), clean(run.id, 20)] for run in runs],
        "verdicts": _decisions(runs),
        "facts": list(_facts(runs)),
        "header": ["figure", *(clean(r.node.hostname, 60) for r in runs), *([] if differences is None else _CHANGE)],
        "figures": apart[:_MOST_DIFFERENCES],
        "more": max(0, len(apart) - _MOST_DIFFERENCES),
        "basis": _BASIS if differences is None else "",
    }


_CHANGE = ["change", "", "by"]
_BASIS = "Their 95 % intervals have no point in common. What is for the record only is left out."


def _compared(differences: Sequence[Difference]) -> Iterator[Row]:
    for d in differences:
        if d.verdict != "same":
            change = "" if d.change_ratio is None else f"{100 * d.change_ratio:+.1f} %"
            yield [
                series_name(d.metric, d.labels, _HIDDEN),
                human(d.a, d.metric),
                human(d.b, d.metric),
                change,
                d.verdict,
                clean(d.basis),
            ]


def _decisions(runs: Sequence[Run]) -> list[list[Any]]:
    profiles = dict.fromkeys(v.profile for run in runs for v in run.verdicts)
    rows = []
    for profile in profiles:
        found = [next((v for v in run.verdicts if v.profile == profile), None) for run in runs]
        rows.append(
            [clean(profile, 80), [(v.decision.value, score(v.score)) if v else ("", "not judged") for v in found]]
        )
    return rows


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


def _differences(runs: Sequence[Run]) -> Iterator[Row]:
    """Two figures differ when their 95 % intervals have no point in common. Those for the record only do not count."""
    tables = [{_key(m): m for m in run.measurements() if m.invalid is None} for run in runs]
    for key in dict.fromkeys(key for table in tables for key in table):
        found = [table.get(key) for table in tables]
        known = [m for m in found if m is not None]
        if len(known) > 1 and max(m.interval[0] for m in known) > min(m.interval[1] for m in known):
            metric, labels = key
            cells = ["–" if m is None else quantity(m.value, m.interval, metric) for m in found]
            yield [series_name(metric, dict(labels), _HIDDEN), *cells]


def _key(m: Measurement) -> tuple[str, tuple[tuple[str, str], ...]]:
    return m.metric, tuple(sorted(m.labels.items()))
