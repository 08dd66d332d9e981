"""The one sentence on starvation, in plain words with human units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bench.model import Attribution, Bottleneck, Measurement
from bench.units import human

Rates = tuple[float, float]  # demand and supply in samples a second

_STOOD_IN = {
    "emulated": "an emulated accelerator stood in for a real one",
    "cpu": "the CPU stood in for the accelerator",
}


def sentence(
    answer: Attribution,
    rates: Rates | None,
    limit: float,
    doubt: str | None,
    slower: float | None = None,
    fix: str = "",
) -> str:
    """What ``answer`` says, for a person; ``rates`` stand in for bytes where a sample's size is not known.

    ``doubt`` is why it could not be decided, ``slower`` the share by which loading slows the accelerator when that is
    all that it loses, ``fix`` what would help. At most 4000 characters, as the document allows.
    """
    if doubt is not None or rates is None:
        text = f"What the accelerator waits for could not be decided: {doubt or 'the feed was not measured'}."
    elif slower is not None:
        text = _slowed(answer, slower)
    else:
        text = _decided(answer, rates, limit)
    return f"{_finished(text, answer)} {fix}".strip()[:4000]


def _slowed(answer: Attribution, slower: float) -> str:
    return (
        f"The accelerator is not kept waiting, but computes {_percent(slower)} slower while data is loaded beside it "
        f"(interference, not starvation): it loses {_percent(answer.starvation_ratio)} of its own rate."
    )


def _decided(answer: Attribution, rates: Rates, limit: float) -> str:
    idle = _percent(answer.starvation_ratio)
    demand, supply = _amounts(answer, rates)
    if answer.bottleneck == "storage":
        verb = "starves" if answer.starved else "seems to starve"
        needs = f"it needs {demand} and gets {supply}"
        return f"Storage {verb} the accelerator: {needs}, so it stands idle {idle} of the time."
    if answer.bottleneck == "preprocess":
        return f"Decoding starves the accelerator, not storage: it stands idle {idle} of the time, {_part(answer)}."
    if answer.bottleneck == "transfer":
        return f"The copy to the accelerator starves it: it stands idle {idle} of the time, {_part(answer)}."
    if answer.bottleneck == "loader":
        return (
            f"The loader starves the accelerator: storage can deliver {supply} of the {demand} that it needs, but the "
            f"loader reads and decodes one after the other, so the accelerator stands idle {idle} of the time."
        )
    return _fed(answer, rates, limit)


def _fed(answer: Attribution, rates: Rates, limit: float) -> str:
    total = answer.starvation_ratio or 0.0
    demand, supply = _amounts(answer, rates)
    if total < 0.05:
        return f"Nothing starves the accelerator: it needs {demand} and the path can deliver {supply}."
    return (
        f"The accelerator stands idle {_percent(total)} of the time, mostly for storage, "
        f"which is too little to call it starved (the limit is {_percent(limit)})."
    )


def _part(answer: Attribution) -> str:
    part = answer.components.preprocess if answer.bottleneck == "preprocess" else answer.components.transfer
    return f"and would for {_percent(part)} through this alone"


def _amounts(answer: Attribution, rates: Rates) -> tuple[str, str]:
    demand, supply, unit = answer.demand_bytes_per_second, answer.supply_bytes_per_second, "bytes_per_second"
    if demand is None or supply is None:
        (demand, supply), unit = rates, "samples_per_second"
    return human(demand, unit, 2), human(supply, unit, 2)


def _percent(ratio: float | None) -> str:
    return human(ratio or 0.0, "a_ratio", 2)


def _finished(text: str, answer: Attribution) -> str:
    """The sentence with the path and the stand-in behind it, where there are any."""
    notes = [f"path {answer.path}"] if answer.path else []
    notes += [_STOOD_IN.get(what, f"{what} stood in") for what in (answer.stand_in or "").split(", ") if what]
    return f"{text[:-1]} ({'; '.join(notes)})." if notes else text


WAYS = "feed_fetch_bytes_per_second"
#: Another way to read must be faster by so much to be worth saying: short arms on a shared device differ by less.
_BETTER = 1.10
_WORSE = 0.90


def advice(bottleneck: Bottleneck, beside: Sequence[Measurement], demand: float | None) -> str:
    """One or two sentences for one path's measurements, or an empty string. ``demand`` in bytes a second."""
    if bottleneck == "storage":
        return " ".join(_storage(beside, demand))
    if bottleneck == "preprocess":
        return _decode(beside)
    if bottleneck == "loader":
        return _loader(beside)
    return ""


def _storage(beside: Sequence[Measurement], demand: float | None) -> Iterator[str]:
    ways = [m for m in beside if m.metric == WAYS]
    if len(ways) < 2:
        return
    usual, *others = ways  # the fetch arm's own way comes first
    fewer = [m for m in others if _readers(m) < _readers(usual) and m.value < _WORSE * usual.value]
    if fewer:
        least = min(fewer, key=_readers)
        yield f"{_readers(usual)} readers in place of {_readers(least)} give {_rate(usual)} instead of {_rate(least)}."
    best = max(ways, key=lambda m: m.value)
    if best is usual or best.value < _BETTER * usual.value or best.interval[0] <= usual.interval[1]:
        tried = ", ".join(dict.fromkeys(_difference(m, usual) for m in others))
        yield f"No other way to read was faster ({tried}): the path itself is the limit."
        return
    enough = demand is not None and best.value >= demand
    end = "which is enough." if enough else "then the path itself is the limit."
    other = _difference(best, usual)
    yield f"{other[0].upper()}{other[1:]} in place of {_plain(usual)} would give {_rate(best)}, {end}"


def _readers(m: Measurement) -> int:
    return int(m.labels.get("readers", "0"))


def _rate(m: Measurement) -> str:
    return human(m.value, WAYS, 2)


def _plain(m: Measurement) -> str:
    return f"{_readers(m)} readers of {human(float(m.labels['block_bytes']), 'block_bytes', 2)}"


def _difference(m: Measurement, usual: Measurement) -> str:
    if m.labels.get("cache") != usual.labels.get("cache"):
        return "reading ahead through the page cache" if m.labels.get("cache") == "through" else "O_DIRECT"
    if m.labels.get("block_bytes") != usual.labels.get("block_bytes"):
        return f"blocks of {human(float(m.labels['block_bytes']), 'block_bytes', 2)}"
    return f"{_readers(m)} readers"


def _decode(beside: Sequence[Measurement]) -> str:
    needed, have = _one(beside, "feed_preprocess_cores"), _one(beside, "feed_available_cores")
    if needed is None or have is None:
        return ""
    more = math.ceil(needed.value - have.value)
    if more >= 1:
        cores = "core" if more == 1 else "cores"
        all_cores = f"{needed.value:.2g} in all, {have.value:.0f} are here"
        return f"The decode is the limit: it needs {more} more {cores} ({all_cores})."
    return (
        f"The decode would need only {needed.value:.2g} of the {have.value:.0f} cores, but does not get them: "
        "more workers, or workers that do not share an interpreter's lock, would mend it."
    )


def _loader(beside: Sequence[Measurement]) -> str:
    gap = _one(beside, "feed_loader_gap_ratio")
    if gap is None:
        return "More workers, so that one reads while another decodes, would mend it."
    name, workers = gap.labels.get("loader", "the loader"), gap.labels.get("workers", "its")
    return (
        f"This is software, not hardware: our own reader on the same path leaves {human(gap.value, 'a_ratio', 2)} "
        f"less of the accelerator idle than {name} with {workers} workers."
    )


def _one(beside: Sequence[Measurement], metric: str) -> Measurement | None:
    return next((m for m in beside if m.metric == metric), None)
