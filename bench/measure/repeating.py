"""Measuring again what straddled a limit, and pooling both rounds."""

from __future__ import annotations

from collections.abc import Sequence

from bench.judge.statistics import merge
from bench.model import Evidence, Measurement, Outcome, ProbeResult


def pooled(first: ProbeResult, second: ProbeResult, evidence: Sequence[Evidence]) -> ProbeResult:
    """Both rounds of one probe as one result. A second round that failed changes nothing but adds a warning."""
    duration = first.duration_seconds + second.duration_seconds
    warnings = dict.fromkeys([*first.warnings, *second.warnings])
    measurements = first.measurements
    if second.outcome is Outcome.OK:
        measurements = tuple(_pooled_measurements(first.measurements, second.measurements))
    else:
        warnings[f"a repetition was {second.outcome.value}: {second.reason}"] = None
    return first.model_copy(
        update={
            "duration_seconds": duration,
            "warnings": tuple(warnings),
            "measurements": measurements,
            "evidence": tuple(evidence),
        }
    )


def _pooled_measurements(first: Sequence[Measurement], second: Sequence[Measurement]) -> list[Measurement]:
    later = {_identity(m): m for m in second}
    kept = []
    for measurement in first:
        other = later.pop(_identity(measurement), None)
        both = other is not None and measurement.repeats and other.repeats
        kept.append(merge(measurement, other) if both and other is not None else measurement)
    return [*kept, *later.values()]


def _identity(measurement: Measurement) -> tuple[str, tuple[tuple[str, str], ...]]:
    return measurement.metric, tuple(sorted(measurement.labels.items()))
