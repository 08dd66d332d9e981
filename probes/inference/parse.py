"""The load's events to measurements: every unit conversion of the inference probe. Pure.

Efficiency, not only speed: model bandwidth utilization is the bytes that a decode step must read over what a copy moves
(reads plus writes); model FLOPs utilization is a prefill's operations over those of a matrix product (PaLM, appendix
B). Rounds are interleaved, so each round gives one ratio, from which the drift of the host or of the clocks has gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.judge import statistics
from bench.model import Code, Measurement
from probes.inference import datasheet, serving
from probes.inference.events import Event, NodeFacts, Window, device_of, first, of
from probes.inference.figures import Labels, contended, median, quantiles

#: By step: the metric of its rate, and what the step counts.
_RATES = {
    "matmul": ("accelerator_matmul_flops_per_second", "flops"),
    "copy": ("accelerator_copy_bytes_per_second", "bytes"),
    "host_to_device": ("accelerator_host_to_device_bytes_per_second", "bytes"),
    "device_to_host": ("accelerator_device_to_host_bytes_per_second", "bytes"),
    "device_to_device": ("accelerator_device_to_device_bytes_per_second", "bytes"),
    "prefill": ("inference_tokens_per_second", "tokens"),
    "decode": ("inference_tokens_per_second", "tokens"),
}
#: By ceiling: the data sheet's promise that it is held against.
_PROMISES = {
    "matmul": "matmul_flops_per_second",
    "copy": "memory_bytes_per_second",
    "host_to_device": "pcie_bytes_per_second",
    "device_to_host": "pcie_bytes_per_second",
}
#: A larger batch trades a user's waiting for throughput; its steps are no user's time between tokens.
_MOST_INTERACTIVE = 32
#: The energy counter moves about every 100 ms (ml.energy): shorter windows say nothing of it.
_SHORTEST_ENERGY_SECONDS = 0.5
Stages = Mapping[tuple[str, int | None], Sequence[Window]]  # by stage and batch (None where a stage has none)
Cards = Mapping[tuple[str, str, str], Sequence[Window]]  # by step, phase and device


def _rates(windows: Sequence[Window]) -> list[float]:
    """Work a second of windows of one stage, in the work's own unit."""
    return [window.rate(_RATES[window.stage][1]) for window in windows]


def parse(found: Sequence[Event]) -> list[Measurement]:
    """All measurements of one device's load. Raises Failed when there is none to make."""
    device = device_of(found)
    stages: dict[tuple[str, int | None], list[Window]] = {}
    for window in of(found, Window):
        stages.setdefault((window.stage, window.batch), []).append(window)
    labels, others = device.labels, device.foreign_processes
    made = [m for windows in stages.values() for m in _stage(windows, labels)]
    made += _utilization(stages, "decode", "copy", "bytes", "inference_bandwidth_utilization_ratio", labels)
    made += _utilization(stages, "prefill", "matmul", "flops", "inference_flops_utilization_ratio", labels)
    for name in _PROMISES:
        made += _expected(device.name, stages.get((name, None), ()), {**labels, "quantity": name})
    made += [*_energy(stages, labels), *serving.parse(found, labels)]
    why = f"{Code.CONTENDED}: {others} other programs use this GPU"
    return [m.model_copy(update={"invalid": m.invalid or why}) for m in made] if others else made


def _stage(windows: Sequence[Window], device: Labels) -> Iterator[Measurement]:
    name, batch, invalid = windows[0].stage, windows[0].batch, contended(windows)
    labels = {**device, "stage": name} if batch is None else {**device, "stage": name, "batch": str(batch)}
    if name in _RATES:
        yield median(_RATES[name][0], _rates(windows), labels, invalid)
    steps = [second for window in windows for second in window.step_seconds]
    if name == "prefill" and batch == 1:
        yield from quantiles("inference_first_token_seconds", steps, labels, invalid)
    if name == "decode" and batch is not None and batch <= _MOST_INTERACTIVE:
        yield from quantiles("inference_inter_token_seconds", steps, labels, invalid)
    yield median("accelerator_busy_ratio", [w.busy_ratio for w in windows], labels, invalid)
    delays = [w.delay_ratio for w in windows if w.delay_ratio is not None]
    if delays:
        yield median("inference_run_delay_ratio", delays, labels)


def _utilization(
    stages: Stages, name: str, ceiling: str, work: str, metric: str, device: Labels
) -> Iterator[Measurement]:
    """Each round's rate over the same round's ceiling."""
    highest = {w.round: w.rate(work) for w in stages.get((ceiling, None), ())}
    for (stage, batch), windows in stages.items():
        ratios = [w.rate(work) / highest[w.round] for w in windows if stage == name and w.round in highest]
        if ratios:
            yield median(metric, ratios, {**device, "stage": name, "batch": str(batch)}, contended(windows))


def _expected(card: str, windows: Sequence[Window], labels: Labels) -> Iterator[Measurement]:
    """A ceiling over the data sheet, and over the least that a sound card of this kind reaches.

    ``card`` is the driver's name for it; one that the table lacks has neither.
    """
    kind = datasheet.find(card)
    if kind is None or not windows:
        return
    quantity = _PROMISES[windows[0].stage]
    promise, limit = kind.promises[quantity], kind.limits.get(quantity)
    rates, invalid = _rates(windows), contended(windows)
    yield median("accelerator_datasheet_ratio", [r / promise for r in rates], labels, invalid)
    if limit is not None:
        yield median("accelerator_expectation_ratio", [r / limit.min for r in rates], labels, invalid)


def _energy(stages: Stages, device: Labels) -> Iterator[Measurement]:
    """Joules a token, where the card counts energy and the windows are long enough for its counter."""
    for (stage, batch), windows in stages.items():
        if stage not in ("prefill", "decode"):
            continue
        long = [w for w in windows if w.joules is not None and w.seconds >= _SHORTEST_ENERGY_SECONDS]
        used = [(w.joules or 0.0) / (w.amount("tokens") * w.steps) for w in long]
        if used:
            labels = {**device, "stage": stage, "batch": str(batch)}
            yield median("inference_token_joules", used, labels, contended(windows))


# --- the node's cards beside each other


def parse_node(found: Sequence[Event]) -> list[Measurement]:
    """Cards alone, together, the slowest over the median, card to card; a lost one has the figures it gave before."""
    node = first(found, NodeFacts) or NodeFacts("cpu")
    stand_in = {} if node.kind == "cuda" else {"stand_in": "cpu"}
    cards: dict[tuple[str, str, str], list[Window]] = {}
    for window in (w for w in of(found, Window) if w.stage in _RATES):
        cards.setdefault((window.stage, window.phase, window.device), []).append(window)
    return [
        *_node_rates(cards, stand_in),
        *_together(cards, stand_in),
        *_spread(cards, stand_in),
        *_node_expected(cards, node.names, stand_in),
    ]


def _node_rates(cards: Cards, stand_in: Labels) -> Iterator[Measurement]:
    for (step, phase, device), windows in cards.items():
        for peer in dict.fromkeys(window.peer for window in windows):
            mine = [window for window in windows if window.peer == peer]
            labels = {"device": device, "stage": phase, **stand_in}
            if peer is not None:
                labels["peer"] = peer
            if step == "decode":
                labels |= {"batch": str(mine[0].batch), "shape": str(mine[0].shape)}
            yield median(_RATES[step][0], _rates(mine), labels, contended(mine))


def _together(cards: Cards, stand_in: Labels) -> Iterator[Measurement]:
    """What is left of a card's rate when all of them work: by round, together over alone."""
    if len({device for _, _, device in cards}) < 2:
        return
    for (step, phase, device), windows in cards.items():
        before = cards.get((step, "alone", device), ())
        alone = dict(zip((w.round for w in before), _rates(before), strict=True))
        both = [w for w in windows if phase == "together" and w.round in alone]
        if both:
            ratios = [rate / alone[w.round] for w, rate in zip(both, _rates(both), strict=True)]
            labels = {"device": device, "quantity": step, **stand_in}
            yield median("accelerator_together_ratio", ratios, labels, contended(windows))


def _spread(cards: Cards, stand_in: Labels) -> Iterator[Measurement]:
    """By round, the slowest card over the median card."""
    for step in dict.fromkeys(step for step, _, _ in cards if step != "device_to_device"):
        for phase in ("alone", "together"):
            beside = [windows for (s, p, _), windows in cards.items() if (s, p) == (step, phase)]
            every = [window for windows in beside for window in windows]
            rounds: dict[int, list[float]] = {}
            for window, rate in zip(every, _rates(every), strict=True):
                rounds.setdefault(window.round, []).append(rate)
            whole = [rates for rates in rounds.values() if len(rates) == len(beside) > 1]
            if whole:
                ratios = [min(rates) / statistics.median(rates) for rates in whole]
                labels = {"quantity": step, "stage": phase, **stand_in}
                yield median("accelerator_spread_ratio", ratios, labels, contended(every))


def _node_expected(cards: Cards, names: Sequence[str], stand_in: Labels) -> Iterator[Measurement]:
    """Each card alone over its data sheet, and over the least that a sound one reaches."""
    for (step, phase, device), windows in cards.items():
        if phase == "alone" and step in _PROMISES and device.isdigit() and int(device) < len(names):
            labels = {"device": device, "quantity": step, "stage": "alone", **stand_in}
            yield from _expected(names[int(device)], windows, labels)
