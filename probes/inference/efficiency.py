"""Efficiency, not only speed: the load against the ceilings of the same run, and those against the data sheet. Pure.

Model bandwidth utilization is the bytes that a decode step must read over what a copy moves (reads plus writes); model
FLOPs utilization is a prefill's operations over those of a matrix product (PaLM, appendix B). Rounds are interleaved,
so each round gives one ratio, from which the drift of the host or of the clocks has gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.measure.probe import Failed
from bench.model import Code, Measurement
from probes.inference import datasheet as _gpu_cards
from probes.inference.events import Event, contended, median, number

QUANTITIES = {
    "matmul": ("matmul_flops_per_second", "flops"),
    "copy": ("memory_bytes_per_second", "bytes"),
    "host_to_device": ("pcie_bytes_per_second", "bytes"),
    "device_to_host": ("pcie_bytes_per_second", "bytes"),
}
#: The energy counter moves about every 100 ms (ml.energy): shorter windows say nothing of it.
_SHORTEST_ENERGY_SECONDS = 0.5


def rate(window: Event, work: str) -> float:
    """Work a second of one window, in the work's own unit. Raises Failed for a window without it."""
    seconds = number(window, "seconds")
    if seconds <= 0:
        raise Failed(Code.TOOL_OUTPUT, f"a window of the load lasted {seconds} s")
    return number(window, work) * number(window, "steps") / seconds


def parse(
    stages: Mapping[tuple[str, object], Sequence[Event]], card: str, device: Mapping[str, str]
) -> list[Measurement]:
    """All ratios that can be made of these stages' windows; ``card`` is the driver's name of the device."""
    return [
        *_against(stages, "decode", "copy", "bytes", "inference_bandwidth_utilization_ratio", device),
        *_against(stages, "prefill", "matmul", "flops", "inference_flops_utilization_ratio", device),
        *_promised(stages, card, device),
        *_energy(stages, device),
    ]


def _against(
    stages: Mapping[tuple[str, object], Sequence[Event]], name: str, ceiling: str, work: str, metric: str,
    device: Mapping[str, str],
) -> Iterator[Measurement]:  # fmt: skip
    """Each round's rate over the same round's ceiling."""
    highest = {w.get("round"): rate(w, work) for w in stages.get((ceiling, None), ())}
    for (stage, batch), windows in stages.items():
        ratios = [
            rate(w, work) / highest[w.get("round")] for w in windows if stage == name and w.get("round") in highest
        ]
        if ratios:
            labels = {**device, "stage": name, "batch": str(batch)}
            yield median(metric, ratios, labels, contended(windows))


def _promised(
    stages: Mapping[tuple[str, object], Sequence[Event]], card: str, device: Mapping[str, str]
) -> Iterator[Measurement]:
    """The ceilings over the data sheet, and over the least that a sound card of this kind reaches."""
    kind = _gpu_cards.find(card)
    if kind is None:
        return
    for name, (quantity, work) in QUANTITIES.items():
        windows = stages.get((name, None), ())
        rates = [rate(w, work) for w in windows]
        if not rates:
            continue
        labels, invalid = {**device, "quantity": name}, contended(windows)
        promise, limit = kind.promises[quantity], kind.limits.get(quantity)
        yield median("accelerator_datasheet_ratio", [r / promise for r in rates], labels, invalid)
        if limit is not None:
            yield median("accelerator_expectation_ratio", [r / limit.min for r in rates], labels, invalid)


def _energy(stages: Mapping[tuple[str, object], Sequence[Event]], device: Mapping[str, str]) -> Iterator[Measurement]:
    """Joules a token, where the card counts energy and the windows are long enough for its counter."""
    for (stage, batch), windows in stages.items():
        if stage not in ("prefill", "decode"):
            continue
        used = [
            number(w, "joules") / (number(w, "tokens") * number(w, "steps"))
            for w in windows
            if w.get("joules") is not None and number(w, "seconds") >= _SHORTEST_ENERGY_SECONDS
        ]
        if used:
            labels = {**device, "stage": stage, "batch": str(batch)}
            yield median("inference_token_joules", used, labels, contended(windows))
