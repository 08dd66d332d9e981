"""The load's events to measurements: every unit conversion of the inference probe. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.measure.probe import Failed
from bench.model import Code, Measurement
from probes.inference import efficiency, serving
from probes.inference.events import Event, contended, median, number, numbers, quantiles
from probes.inference.multi_gpu import RATES

_RATES = {**RATES, "prefill": ("inference_tokens_per_second", "tokens")}
#: A larger batch trades a user's waiting for throughput; its steps are no user's time between tokens.
_MOST_INTERACTIVE = 32


def parse(found: Sequence[Event]) -> list[Measurement]:
    """All measurements of one device's load. Raises Failed when there is none to make."""
    device = next((event for event in found if event["event"] == "device"), None)
    if device is None:
        raise Failed(Code.TOOL_OUTPUT, "the load never said what it runs on")
    labels, stages = device_labels(device), _by_stage(found)
    made = [m for windows in stages.values() for m in _stage(windows, labels)]
    made += efficiency.parse(stages, str(device.get("name", "")), labels)
    made += serving.parse(found, labels)
    others = device.get("foreign_processes")
    return [_voided(m, f"{Code.CONTENDED}: {others} other programs use this GPU") for m in made] if others else made


def _voided(measurement: Measurement, why: str) -> Measurement:
    return measurement.model_copy(update={"invalid": measurement.invalid or why})


def device_labels(device: Event) -> dict[str, str]:
    """Labels that every figure of a device carries: which device, which shape, and what it stands in for."""
    labels = {"device": str(device["index"]) if device["kind"] == "cuda" else str(device["kind"])}
    labels["shape"] = str(device["shape"])
    if device.get("stand_in"):
        labels["stand_in"] = str(device["stand_in"])
    return labels


def _by_stage(found: Sequence[Event]) -> dict[tuple[str, object], list[Event]]:
    """Windows by stage and batch (None where a stage has none)."""
    stages: dict[tuple[str, object], list[Event]] = {}
    for event in found:
        if event["event"] == "window":
            stages.setdefault((str(event.get("stage")), event.get("batch")), []).append(event)
    return stages


def _stage(windows: Sequence[Event], device: dict[str, str]) -> Iterator[Measurement]:
    name, invalid = str(windows[0]["stage"]), contended(windows)
    labels = {**device, "stage": name}
    if "batch" in windows[0]:
        labels["batch"] = str(windows[0]["batch"])
    if name in _RATES:
        metric, work = _RATES[name]
        yield median(metric, [efficiency.rate(w, work) for w in windows], labels, invalid)
    if name == "prefill" and number(windows[0], "batch") == 1:
        yield from quantiles("inference_first_token_seconds", _steps(windows), labels, invalid)
    if name == "decode" and number(windows[0], "batch") <= _MOST_INTERACTIVE:
        yield from quantiles("inference_inter_token_seconds", _steps(windows), labels, invalid)
    busy = [min(1.0, number(w, "busy_seconds") / number(w, "seconds")) for w in windows]
    yield median("accelerator_busy_ratio", busy, labels, invalid)
    delays = [float(w["delay_ratio"]) for w in windows if isinstance(w.get("delay_ratio"), int | float)]
    if delays:
        yield median("inference_run_delay_ratio", delays, labels, None)


def _steps(windows: Sequence[Event]) -> list[float]:
    return [second for window in windows for second in numbers(window, "step_seconds")]
