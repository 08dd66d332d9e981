"""The load's events to measurements: every unit conversion of the inference probe, and what voids a figure. Pure.

Efficiency, not only speed: model bandwidth utilization is the bytes that a decode step must read over what a copy moves
(reads plus writes); model FLOPs utilization is a prefill's operations over those of a matrix product (PaLM, appendix
B). Rounds are interleaved, so each round gives one ratio, from which the drift of the host or of the clocks has gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from bench.judge import statistics
from bench.model import Code, Measurement
from probes.common.metrics import Labels, figure, of_counts, of_repeats, quantiles, rate_of_parts
from probes.common.open_loop import Kept, Limits, late
from probes.common.pipe import Record, of
from probes.common.sustained import sustained
from probes.inference import datasheet
from probes.inference.events import (
    Checked,
    NodeFacts,
    SearchTrial,
    Serve,
    ServedRequest,
    Stretch,
    Window,
    device_of,
    first,
)

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

#: Shares of wall time. On a quiet 2-core machine the load's own delay was 0.1 to 1.1 % with one thread and 4.5 % with
#: two; on busy ones 27 to 96 %. Pressure counts the load's own waiting too, so that is taken off first.
MOST_DELAY_RATIO = 0.05
MOST_PRESSURE_RATIO = 0.10
MOST_STEAL_RATIO = 0.02

MISMATCHED = "accelerator_mismatched_values"

Stages = Mapping[tuple[str, int | None], Sequence[Window]]  # by stage and batch (None where a stage has none)
Cards = Mapping[tuple[str, str, str, str | None], Sequence[Window]]  # by step, phase, device and the copy's other end


def parse(found: Sequence[Record]) -> list[Measurement]:
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
    for done in of(found, Checked):
        made += _values(done, {**labels, "stage": "check"})
    made += [*_energy(stages, labels), *_serve(found, {**labels, "stage": "serve"})]
    why = f"{Code.CONTENDED}: {others} other programs use this GPU"
    return [m.model_copy(update={"invalid": m.invalid or why}) for m in made] if others else made


def _stage(windows: Sequence[Window], device: Labels) -> Iterator[Measurement]:
    name, batch, invalid = windows[0].stage, windows[0].batch, contended(windows)
    labels = {**device, "stage": name} if batch is None else {**device, "stage": name, "batch": str(batch)}
    if name in _RATES:
        yield of_repeats(_RATES[name][0], _rates(windows), labels, invalid)
    steps = [second for window in windows for second in window.step_seconds]
    if name == "prefill" and batch == 1:
        yield from quantiles("inference_first_token_seconds", steps, labels, invalid)
    if name == "decode" and batch is not None and batch <= _MOST_INTERACTIVE:
        yield from quantiles("inference_inter_token_seconds", steps, labels, invalid)
    yield of_repeats("accelerator_busy_ratio", [w.busy_ratio for w in windows], labels, invalid, most=1.0)
    if delays := [w.delay_ratio for w in windows if w.delay_ratio is not None]:
        yield of_repeats("inference_run_delay_ratio", delays, labels, most=1.0)


def _values(done: Checked, labels: Labels) -> Iterator[Measurement]:
    """How many values were not those of the first product, and not the known answer."""
    for against, number in (("first", done.mismatches), ("answer", done.wrong)):
        if number is not None:
            yield figure(MISMATCHED, float(number), {**labels, "against": against}, n=done.products)


def _rates(windows: Sequence[Window]) -> list[float]:
    return [window.rate(_RATES[window.stage][1]) for window in windows]


def _utilization(
    stages: Stages, name: str, ceiling: str, work: str, metric: str, device: Labels
) -> Iterator[Measurement]:
    """Each round's rate over the same round's ceiling."""
    highest = {w.round: w.rate(work) for w in stages.get((ceiling, None), ())}
    for (stage, batch), windows in stages.items():
        if ratios := [w.rate(work) / highest[w.round] for w in windows if stage == name and w.round in highest]:
            yield of_repeats(metric, ratios, {**device, "stage": name, "batch": str(batch)}, contended(windows))


def _expected(card: str, windows: Sequence[Window], labels: Labels) -> Iterator[Measurement]:
    """A ceiling over the data sheet and over a sound card's least; none for a ``card`` (the driver's name) unknown."""
    if (kind := datasheet.find(card)) is None or not windows:
        return
    quantity = _PROMISES[windows[0].stage]
    rates, invalid, limit = _rates(windows), contended(windows), kind.limits.get(quantity)
    yield of_repeats("accelerator_datasheet_ratio", [r / kind.promises[quantity] for r in rates], labels, invalid)
    if limit is not None:
        yield of_repeats("accelerator_expectation_ratio", [r / limit.min for r in rates], labels, invalid)


def _energy(stages: Stages, device: Labels) -> Iterator[Measurement]:
    """Joules a token, where the card counts energy and the windows are long enough for its counter."""
    for (stage, batch), windows in stages.items():
        long = [w for w in windows if w.joules is not None and w.seconds >= _SHORTEST_ENERGY_SECONDS]
        if long and stage in ("prefill", "decode"):
            used = [(w.joules or 0.0) / (w.amount("tokens") * w.steps) for w in long]
            labels = {**device, "stage": stage, "batch": str(batch)}
            yield of_repeats("inference_token_joules", used, labels, contended(windows))


# --- open-loop serving; times count from the *scheduled* arrival


def _serve(found: Sequence[Record], labels: Labels) -> Iterator[Measurement]:
    """All figures of the serve stage; none where it was not run.

    Below saturation the rates equal what was offered: they say that the load was carried, not what could be.
    """
    if (serve := first(found, Serve)) is None:
        return
    requests, limits = of(found, ServedRequest), Limits(serve.first_token_limit, serve.inter_token_limit)
    lags = [r.lag for r in requests if r.lag is not None]
    invalid = contended([serve]) or late(lags, limits.first_token)
    firsts = [r.first_token for r in requests if r.first_token is not None]
    yield from quantiles("inference_first_token_seconds", firsts, labels, invalid)
    yield from quantiles("inference_inter_token_seconds", [g for r in requests for g in r.gaps], labels, invalid)
    longest = [max(r.gaps) for r in requests if r.gaps]
    yield from quantiles("inference_longest_gap_seconds", longest, labels, invalid)
    yield figure("inference_offered_requests_per_second", serve.rate, labels)
    ends, tokens = [r.tokens[-1] for r in requests if r.finished], [t for r in requests for t in r.tokens]
    yield rate_of_parts("inference_requests_per_second", ends, serve.window, labels, invalid)
    yield rate_of_parts("inference_tokens_per_second", tokens, serve.window, labels, invalid)
    yield from _goodput([limits.kept(r, serve.window) for r in requests], limits, labels, invalid)
    yield from quantiles("inference_schedule_lag_seconds", lags, labels)
    why, unbroken = contended(of(found, SearchTrial)) or invalid, "no rate was found at which the limits are broken"
    yield from sustained(found, limits, labels, why, unbroken)
    yield figure("accelerator_busy_ratio", serve.busy_ratio, labels, invalid=invalid)
    if serve.delay_ratio is not None:
        yield figure("inference_run_delay_ratio", serve.delay_ratio, labels)


def _goodput(outcomes: Sequence[Kept], limits: Limits, labels: Labels, invalid: str | None) -> Iterator[Measurement]:
    """The share of the requests, with Clopper and Pearson's exact interval."""
    kept, censored = outcomes.count(Kept.KEPT), outcomes.count(Kept.CENSORED)
    if decided := len(outcomes) - censored:
        yield of_counts("inference_goodput_ratio", kept, decided, limits.labels(labels), invalid)
    yield figure("inference_unfinished_requests", float(censored), labels)


# --- the node's cards beside each other


def parse_node(found: Sequence[Record]) -> list[Measurement]:
    """Cards alone, together, the slowest over the median, card to card; a lost one has the figures it gave before."""
    node = first(found, NodeFacts) or NodeFacts("cpu")
    stand_in = {} if node.kind == "cuda" else {"stand_in": "cpu"}
    cards: dict[tuple[str, str, str, str | None], list[Window]] = {}
    for window in (w for w in of(found, Window) if w.stage in _RATES):
        cards.setdefault((window.stage, window.phase, window.device, window.peer), []).append(window)
    made = [*_node_rates(cards, stand_in), *_together(cards, stand_in), *_spread(cards, stand_in)]
    return [*made, *_node_expected(cards, node.names, stand_in), *_agreed(of(found, Checked), node.names, stand_in)]


def _node_rates(cards: Cards, stand_in: Labels) -> Iterator[Measurement]:
    for (step, phase, device, peer), windows in cards.items():
        labels = {"device": device, "stage": phase, **stand_in}
        if peer is not None:
            labels |= {"peer": peer, "transport": windows[0].transport or "unknown"}
        if step == "decode":
            labels |= {"batch": str(windows[0].batch), "shape": str(windows[0].shape)}
        yield of_repeats(_RATES[step][0], _rates(windows), labels, contended(windows))


def _together(cards: Cards, stand_in: Labels) -> Iterator[Measurement]:
    """What is left of a card's rate when all of them work: by round, together over alone."""
    if len({device for _, _, device, _ in cards}) < 2:
        return
    for (step, phase, device, peer), windows in cards.items():
        before = cards.get((step, "alone", device, peer), ())
        alone = dict(zip((w.round for w in before), _rates(before), strict=True))
        if both := [w for w in windows if phase == "together" and w.round in alone]:
            ratios = [rate / alone[w.round] for w, rate in zip(both, _rates(both), strict=True)]
            labels = {"device": device, "quantity": step, **stand_in}
            yield of_repeats("accelerator_together_ratio", ratios, labels, contended(windows))


def _spread(cards: Cards, stand_in: Labels) -> Iterator[Measurement]:
    steps = dict.fromkeys(step for step, *_ in cards if step != "device_to_device")
    for step, phase in product(steps, ("alone", "together")):
        beside = [windows for (s, p, *_), windows in cards.items() if (s, p) == (step, phase)]
        every = [window for windows in beside for window in windows]
        rounds: dict[int, list[float]] = {}
        for window, rate in zip(every, _rates(every), strict=True):
            rounds.setdefault(window.round, []).append(rate)
        if whole := [rates for rates in rounds.values() if len(rates) == len(beside) > 1]:
            ratios = [min(rates) / statistics.median(rates) for rates in whole]
            labels = {"quantity": step, "stage": phase, **stand_in}
            yield of_repeats("accelerator_spread_ratio", ratios, labels, contended(every))


def _agreed(checks: Sequence[Checked], names: Sequence[str], stand_in: Labels) -> Iterator[Measurement]:
    """Each card's own values, and whether its product is that of most cards of its kind; those that computed wrong have
    no say in it. Where no product has most of them, none is trusted.
    """
    kinds: dict[str, list[Checked]] = {}
    for check in checks:
        kind = names[int(check.device)] if check.device.isdigit() and int(check.device) < len(names) else ""
        kinds.setdefault(kind, []).append(check)
        yield from _values(check, {"device": check.device, "stage": "together", **stand_in})
    for alike in (alike for alike in kinds.values() if len(alike) > 1):
        voters = [check for check in alike if not check.wrong and not check.mismatches] or alike
        digest, votes = Counter(check.digest for check in voters).most_common(1)[0]
        for check in alike:
            differs = check.digest != digest or votes <= len(voters) / 2
            labels = {"device": check.device, "stage": "together", "against": "cards", **stand_in}
            yield figure(MISMATCHED, float(differs), labels, n=len(alike))


def _node_expected(cards: Cards, names: Sequence[str], stand_in: Labels) -> Iterator[Measurement]:
    for (step, phase, device, _), windows in cards.items():
        if phase == "alone" and step in _PROMISES and device.isdigit() and int(device) < len(names):
            labels = {"device": device, "quantity": step, "stage": "alone", **stand_in}
            yield from _expected(names[int(device)], windows, labels)


# --- what voids a figure


def contended(stretches: Sequence[Stretch]) -> str | None:
    """Why these windows were contended, or None. The median window counts: the value judged is a median too."""
    delay, steal = _middle([s.delay_ratio for s in stretches]), _middle([s.steal_ratio for s in stretches])
    others = _middle([s.pressure_ratio for s in stretches]) - delay
    if delay > MOST_DELAY_RATIO:
        return f"{Code.CONTENDED}: the load waited {delay:.0%} of its time for a CPU (at most {MOST_DELAY_RATIO:.0%})"
    if steal > MOST_STEAL_RATIO:
        return f"{Code.CONTENDED}: the hypervisor took {steal:.0%} of the CPUs (at most {MOST_STEAL_RATIO:.0%})"
    if others > MOST_PRESSURE_RATIO:
        return f"{Code.CONTENDED}: others waited for a CPU {others:.0%} of the time (at most {MOST_PRESSURE_RATIO:.0%})"
    return None


def _middle(ratios: Sequence[float | None]) -> float:
    """Their median; what the kernel does not say voids nothing, so it counts as 0."""
    return statistics.median([ratio for ratio in ratios if ratio is not None] or [0.0])
