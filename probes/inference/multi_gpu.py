"""The node's cards beside each other: alone, together, the slowest over the median, card to card. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.judge import statistics
from bench.model import Measurement
from probes.inference import datasheet as _gpu_cards
from probes.inference.efficiency import QUANTITIES, rate
from probes.inference.events import Event, contended, median

#: By step: the metric of its rate, and what the step counts.
RATES = {
    "matmul": ("accelerator_matmul_flops_per_second", "flops"),
    "copy": ("accelerator_copy_bytes_per_second", "bytes"),
    "host_to_device": ("accelerator_host_to_device_bytes_per_second", "bytes"),
    "device_to_host": ("accelerator_device_to_host_bytes_per_second", "bytes"),
    "device_to_device": ("accelerator_device_to_device_bytes_per_second", "bytes"),
    "decode": ("inference_tokens_per_second", "tokens"),
}
Windows = Mapping[tuple[str, str, str], Sequence[Event]]  # by step, phase and device


def parse(found: Sequence[Event]) -> list[Measurement]:
    """All figures of the node's cards; a card that was lost on the way has those it gave before."""
    node = next((event for event in found if event["event"] == "node"), {"kind": "cpu"})
    stand_in = {} if node.get("kind") == "cuda" else {"stand_in": "cpu"}
    windows: dict[tuple[str, str, str], list[Event]] = {}
    for event in found:
        if event["event"] == "window":
            key = (str(event.get("stage")), str(event.get("phase")), str(event.get("device")))
            windows.setdefault(key, []).append(event)
    return [
        *_rates(windows, stand_in),
        *_together(windows, stand_in),
        *_spread(windows, stand_in),
        *_expected(windows, [str(name) for name in node.get("names", ())], stand_in),
    ]


def _rates(windows: Windows, stand_in: Mapping[str, str]) -> Iterator[Measurement]:
    for (step, phase, device), found in windows.items():
        if step not in RATES:
            continue
        metric, work = RATES[step]
        for peer in dict.fromkeys(event.get("peer") for event in found):
            mine = [event for event in found if event.get("peer") == peer]
            labels = {"device": device, "stage": phase, **stand_in}
            if peer is not None:
                labels["peer"] = str(peer)
            if step == "decode":
                labels |= {"batch": str(mine[0].get("batch")), "shape": str(mine[0].get("shape"))}
            yield median(metric, [rate(w, work) for w in mine], labels, contended(mine))


def _together(windows: Windows, stand_in: Mapping[str, str]) -> Iterator[Measurement]:
    """What is left of a card's rate when all of them work: by round, together over alone."""
    if len({device for _, _, device in windows}) < 2:
        return
    for (step, phase, device), found in windows.items():
        alone = {w.get("round"): rate(w, RATES[step][1]) for w in windows.get((step, "alone", device), ())}
        if phase != "together" or step not in RATES or not alone:
            continue
        ratios = [rate(w, RATES[step][1]) / alone[w.get("round")] for w in found if w.get("round") in alone]
        if ratios:
            labels = {"device": device, "quantity": step, **stand_in}
            yield median("accelerator_together_ratio", ratios, labels, contended(found))


def _spread(windows: Windows, stand_in: Mapping[str, str]) -> Iterator[Measurement]:
    """By round, the slowest card over the median card."""
    for step in dict.fromkeys(step for step, _, _ in windows):
        for phase in ("alone", "together"):
            cards = [found for (s, p, _), found in windows.items() if (s, p) == (step, phase)]
            if step not in RATES or step == "device_to_device" or len(cards) < 2:
                continue
            rounds: dict[object, list[float]] = {}
            for window in (w for found in cards for w in found):
                rounds.setdefault(window.get("round"), []).append(rate(window, RATES[step][1]))
            ratios = [min(rates) / statistics.median(rates) for rates in rounds.values() if len(rates) == len(cards)]
            if ratios:
                labels = {"quantity": step, "stage": phase, **stand_in}
                invalid = contended([w for found in cards for w in found])
                yield median("accelerator_spread_ratio", ratios, labels, invalid)


def _expected(windows: Windows, names: Sequence[str], stand_in: Mapping[str, str]) -> Iterator[Measurement]:
    """Each card alone over its data sheet, and over the least that a sound one reaches."""
    for (step, phase, device), found in windows.items():
        known = device.isdigit() and int(device) < len(names)
        kind = _gpu_cards.find(names[int(device)]) if known else None
        if phase != "alone" or step not in QUANTITIES or kind is None:
            continue
        quantity, work = QUANTITIES[step]
        rates, invalid = [rate(w, work) for w in found], contended(found)
        labels = {"device": device, "quantity": step, "stage": "alone", **stand_in}
        promise, limit = kind.promises[quantity], kind.limits.get(quantity)
        yield median("accelerator_datasheet_ratio", [r / promise for r in rates], labels, invalid)
        if limit is not None:
            yield median("accelerator_expectation_ratio", [r / limit.min for r in rates], labels, invalid)
