"""The load's events to measurements: every unit conversion of the inference probe. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.measure.probe import Failed
from bench.model import Measurement
from probes import _inference_serving as serving
from probes._inference_events import Event, number, numbers
from probes._inference_figures import median, quantiles
from probes._inference_validity import contended

#: A larger batch trades a user's waiting for throughput; its steps are no user's time between tokens.
_MOST_INTERACTIVE = 32


def parse(found: Sequence[Event]) -> list[Measurement]:
    """All measurements of one device's load. Raises Failed when there is none to make."""
    device = next((event for event in found if event["event"] == "device"), None)
    if device is None:
        raise Failed("garbage: the load never said what it runs on")
    labels = device_labels(device)
    made = [m for windows in _by_stage(found) for m in _stage(windows, labels)]
    made += serving.parse(found, labels)
    return made


def device_labels(device: Event) -> dict[str, str]:
    """Labels that every figure of a device carries: which device, which shape, and what it stands in for."""
    labels = {"device": str(device["index"]) if device["kind"] == "cuda" else str(device["kind"])}
    labels["shape"] = str(device["shape"])
    if device.get("stand_in"):
        labels["stand_in"] = str(device["stand_in"])
    return labels


def _by_stage(found: Sequence[Event]) -> list[list[Event]]:
    stages: dict[tuple[str, object], list[Event]] = {}
    for event in found:
        if event["event"] == "window":
            stages.setdefault((str(event["stage"]), event.get("batch")), []).append(event)
    return list(stages.values())


def _stage(windows: Sequence[Event], device: dict[str, str]) -> Iterator[Measurement]:
    name, invalid = str(windows[0]["stage"]), contended(windows)
    labels = {**device, "stage": name}
    if "batch" in windows[0]:
        labels["batch"] = str(windows[0]["batch"])
    rate = _rates(windows, labels, invalid)
    match name:
        case "matmul":
            yield rate("accelerator_matmul_flops_per_second", "flops")
        case "copy":
            yield rate("accelerator_copy_bytes_per_second", "bytes")
        case "prefill":
            yield rate("inference_tokens_per_second", "tokens")
            if number(windows[0], "batch") == 1:
                yield from quantiles("inference_first_token_seconds", _steps(windows), labels, invalid)
        case "decode":
            yield rate("inference_tokens_per_second", "tokens")
            if number(windows[0], "batch") <= _MOST_INTERACTIVE:
                yield from quantiles("inference_inter_token_seconds", _steps(windows), labels, invalid)
    busy = [min(1.0, number(w, "busy_seconds") / number(w, "seconds")) for w in windows]
    yield median("accelerator_busy_ratio", busy, labels, invalid)
    delays = [float(w["delay_ratio"]) for w in windows if isinstance(w.get("delay_ratio"), int | float)]
    if delays:
        yield median("inference_run_delay_ratio", delays, labels, None)


def _steps(windows: Sequence[Event]) -> list[float]:
    return [second for window in windows for second in numbers(window, "step_seconds")]


def _rates(windows: Sequence[Event], labels: dict[str, str], invalid: str | None) -> Callable[[str, str], Measurement]:
    """Work a second of each window: ``work`` of one step times the steps, over the window's wall seconds."""

    def rate(metric: str, work: str) -> Measurement:
        values = [number(w, work) * number(w, "steps") / number(w, "seconds") for w in windows]
        return median(metric, values, labels, invalid)

    return rate
