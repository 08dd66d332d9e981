"""The lineage of each verdict: gate, limit and its source, finding, measurements, probe, raw output, command, version.

Every figure can be traced to the line of tool output that it came from, and whether that output is still the one that
was measured is checked by its sha256. Paths in a run document are not trusted: only regular files below the run's own
folder are read, and links are not followed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from bench.measure.jsonl import decoded
from bench.model import Evidence, Finding, Measurement, ProbeResult, Run, Verdict
from bench.show import wording
from bench.show.text import clean

_INDEX = "tools.jsonl"
_MAX_BYTES = 64 << 20
_MOST_REPEATS = 20


def explain(run: Run, folder: Path | None = None, *, metric: str | None = None) -> str:
    """The lineage as text that ends with a newline, for all gates or for those of one ``metric``.

    ``folder`` holds the run's document; without it the raw output is listed and not verified. A metric that no gate
    names is explained by its measurements alone.
    """
    verdicts = [(v, [f for f in v.findings if metric in (None, f.metric)]) for v in run.verdicts]
    lines = [*_run(run)]
    for verdict, findings in verdicts:
        if findings:
            lines += ["", *_verdict(run, verdict, findings)]
    if metric is not None and not any(findings for _, findings in verdicts):
        found = [(result, m) for result in run.results for m in result.measurements if m.metric == metric]
        lines += ["", f"No gate names {clean(metric, 100)}.", *_measurements(found, "  ")]
    for result in _concerned(run, metric):
        lines += ["", *_probe(result, folder)]
    return "\n".join([*lines, "", *_versions(run)]) + "\n"


def _run(run: Run) -> Iterator[str]:
    yield f"run {clean(run.id)} on {clean(run.node.hostname)}, {wording.when(run.started_at)}"
    yield f"  fingerprint of the node: {clean(run.node.fingerprint)}"
    yield f"  effort {run.request.effort.value}, accelerator {clean(run.request.accelerator)}"
    if run.replay_of:
        yield f"  replayed from {clean(run.replay_of)}"


# --- verdicts


def _verdict(run: Run, verdict: Verdict, findings: Iterable[Finding]) -> Iterator[str]:
    yield f"{verdict.decision.value} {clean(verdict.profile)}, score {wording.scored(verdict)}"
    yield f"  profile sha256 {clean(verdict.digest)}"
    for finding in findings:
        yield from _finding(run, finding)


def _finding(run: Run, finding: Finding) -> Iterator[str]:
    bound, limit = wording.bound_of(finding.limit)
    series, far = _series(finding.metric, finding.labels), wording.margin(finding)
    rows = {
        "gate": f"{series} {bound} {limit!r} ({wording.needed(finding.limit, finding.metric)})",
        "source": clean(finding.source),
        "observed": wording.observed(finding) + (f", {far}" if far else ""),
        "stand-in": clean(finding.stand_in or ""),
        "reason": clean(finding.reason or ""),
        "remedy": clean(finding.remedy),
    }
    yield ""
    weight = "required" if finding.required else "optional"
    yield f"  {wording.STATUS[finding.status]}: {wording.bare_name(finding)}, {weight}"
    yield from (f"    {name:<9} {text}" for name, text in rows.items() if text)
    yield from _measurements(_decided_by(run, finding), "    ")


def _decided_by(run: Run, finding: Finding) -> list[tuple[ProbeResult, Measurement]]:
    """The measurements with the finding's number; all that match the gate where none has it."""
    matching = [
        (result, m)
        for result in run.results
        for m in result.measurements
        if m.metric == finding.metric and finding.labels.items() <= m.labels.items()
    ]
    return [pair for pair in matching if pair[1].value == finding.observed] or matching


def _measurements(found: list[tuple[ProbeResult, Measurement]], indent: str) -> Iterator[str]:
    for result, m in found:
        yield f"{indent}measured  {_series(m.metric, m.labels)} = {m.value!r} by the probe {result.probe}"
        yield f"{indent}          {wording.quantity(m.value, m.interval, m.metric)}, {m.samples} samples{_repeats(m)}"
        if m.invalid:
            yield f"{indent}          for the record only: {clean(m.invalid)}"
    if not found:
        yield f"{indent}measured  nothing that carries these labels"


def _repeats(m: Measurement) -> str:
    if not m.repeats:
        return ""
    shown = ", ".join(f"{value:.6g}" for value in m.repeats[:_MOST_REPEATS])
    more = len(m.repeats) - _MOST_REPEATS
    return f"; repeats {shown}" + (f" and {more} more" if more > 0 else "")


def _series(metric: str, labels: Mapping[str, str]) -> str:
    inside = ", ".join(f'{key}="{clean(value)}"' for key, value in labels.items())
    return f"{metric}{{{inside}}}" if inside else metric


# --- probes


def _concerned(run: Run, metric: str | None) -> list[ProbeResult]:
    """All probes; for one metric those that measured it, or, when none did, those that measured nothing."""
    if metric is None:
        return list(run.results)
    measured = [result for result in run.results if any(m.metric == metric for m in result.measurements)]
    return measured or [result for result in run.results if not result.measurements]


def _probe(result: ProbeResult, folder: Path | None) -> Iterator[str]:
    why = f", {wording.reason_text(result.reason)}" if result.reason else ""
    yield f"probe {result.probe}: {wording.OUTCOME[result.outcome]}, {result.duration_seconds:.1f} s{why}"
    if result.remedy:
        yield f"  mend      {clean(result.remedy)}"
    for warning in result.warnings:
        yield f"  warning   {clean(warning)}"
    for m in result.measurements:
        if m.invalid:
            yield f"  record    {_series(m.metric, m.labels)} = {m.value!r}: {clean(m.invalid)}"
    for item in result.evidence:
        yield f"  evidence  {clean(item.path)}"
        yield f"            sha256 {item.sha256}: {_verified(item, folder)}"
    for call in _calls(result, folder):
        yield from _call(call)


def _verified(item: Evidence, folder: Path | None) -> str:
    if folder is None:
        return "not looked at"
    data = _read(folder, item.path)
    if data is None:
        return "NOT THERE, or not a file of this run"
    return "unchanged" if hashlib.sha256(data).hexdigest() == item.sha256 else "CHANGED since it was measured"


def _calls(result: ProbeResult, folder: Path | None) -> Iterator[dict[str, Any]]:
    """This probe's lines of ``tools.jsonl`` in the folders of its evidence; what is no call is left out."""
    if folder is None:
        return
    for place in dict.fromkeys(PurePosixPath(item.path).parent for item in result.evidence):
        for line in (_read(folder, str(place / _INDEX)) or b"").splitlines():
            call = decoded(line)
            if call is not None and call.get("probe") == result.probe and isinstance(call.get("argv"), list):
                yield call


def _call(call: Mapping[str, Any]) -> Iterator[str]:
    words = [clean(str(word)) for word in call["argv"]]
    if not words:
        return  # recorded text, not a program
    name, code, seconds = clean(str(call.get("name", ""))), call.get("returncode"), call.get("seconds")
    took = f", {seconds:.1f} s" if isinstance(seconds, int | float) else ""
    yield f"  command   {name}: status {clean(str(code))}{took}, output {clean(str(call.get('stdout', '')))}"
    yield f"            {shlex.join(words)}"
    if call.get("error"):
        yield f"            {clean(str(call['error']))}"


def _read(folder: Path, relative: str) -> bytes | None:
    """The content of a regular file below ``folder``; None for anything else, whatever the path says."""
    parts = PurePosixPath(relative).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in relative:
        return None
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with ExitStack() as opened, suppress(OSError, UnicodeError):
        at = os.open(folder, flags | os.O_DIRECTORY)
        opened.callback(os.close, at)
        for part in parts:
            at = os.open(part, flags | os.O_NOFOLLOW, dir_fd=at)
            opened.callback(os.close, at)
        found = os.fstat(at)
        if stat.S_ISREG(found.st_mode) and found.st_size <= _MAX_BYTES:
            return open(at, "rb", closefd=False).read(_MAX_BYTES)
    return None


# --- versions


def _versions(run: Run) -> Iterator[str]:
    yield "versions"
    if run.bench_version:
        yield f"  aiready-bench {clean(run.bench_version)}"
    facts = run.node.facts
    named = {name: facts.get(name) for name in ("os", "kernel", "architecture", "nvidia_driver")}
    versions = facts.get("versions")
    named |= versions if isinstance(versions, dict) else {}
    for name, value in named.items():
        if isinstance(value, str | int | float) and name != "bench":
            yield f"  {clean(str(name), 60)} {clean(str(value), 200)}"
