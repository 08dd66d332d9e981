"""What the accelerator waited for: the feed's ceilings, their differences, and one sentence (contract, section 6).

Five rates of one loop over the same data, each with one thing more in it, are ceilings that fall: C (resident: the
input is already on the device), T (transfer: copied to it), P (preprocess: decoded from memory, then copied), F
(fetch: read alone, no accelerator) and S (storage: read cold, decoded, copied, consumed). `total = 1 - S/C` is the
share of its capability that the accelerator lost, and the differences of the ceilings say to what.

Sources: the split by differential runs is DS-Analyzer's (Mohan et al., VLDB 2021), F as its own arm is ours, so that
storage is not blamed for a slow decode; 0.10 is MLPerf Storage's accelerator utilization of 90 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bench.judge.profile import Profile
from bench.model import Attribution, Bottleneck, Components, Measurement, Outcome, ProbeResult
from bench.units import human

RATE = "inference_samples_per_second"
SAMPLE_BYTES = "feed_sample_bytes"
BUSY = "accelerator_busy_ratio"
INTERFERENCE = "feed_interference_ratio"
_BESIDE = "feed_"
#: Without one of these there is no attribution. A device that needs no copy (an emulated one) has no transfer arm.
NEEDED = ("resident", "preprocess", "fetch", "storage")
GAP_LIMIT = 0.10
#: The storage is not blamed above this share of the demand, nor the feed at all under this starvation: 5 % is where
#: TensorFlow's input-pipeline analyser begins to call a step moderately input-bound.
_FED = 0.95
_NOT_STARVED = 0.05


def components(c: float, t: float | None, p: float, f: float, s: float) -> Components:
    """The parts of starvation by falling ceilings; all rates in samples a second, ``c`` above 0.

    They sum to ``1 - s / c``. Noise can make a part slightly negative; it is not hidden, so the sum stays exact.
    Without a transfer arm the whole of ``C - P`` is the preparation's, and transfer stays unmeasured.
    """
    return Components(
        transfer=None if t is None else (c - t) / c,
        preprocess=((c if t is None else t) - p) / c,
        storage=(p - min(p, f)) / c,
        overlap=(min(p, f) - s) / c,
    )


def supply_gap(c: float, f: float) -> float:
    """The share of the demand that the path cannot deliver whatever the loader does: ``1 - min(c, f) / c``."""
    return 1.0 - min(c, f) / c


def gap_limit(profiles: Iterable[Profile]) -> float:
    """The smallest ``max`` that a required gate sets for the starvation by storage, or 0.10 when none does."""
    gates = (g for profile in profiles for g in profile.gates if g.required and g.metric == "starvation_ratio")
    limits = [g.max for g in gates if g.labels.get("component") == "storage" and g.max is not None]
    return min(limits, default=GAP_LIMIT)


def attribute(
    results: Sequence[ProbeResult], limit: float = GAP_LIMIT, probes: Mapping[str, str] | None = None
) -> Attribution:
    """What the accelerator waited for, on the worst path that was measured.

    A path where something is found wrong is worse than one that could not be decided, and that is worse than one
    that feeds the accelerator; of equals, the one with the larger starvation. ``probes`` maps a metric to its probe,
    so that a missing measurement can quote that probe's reason.
    """
    arms = _arms([m for result in results for m in result.measurements])
    if not arms:
        return _undetermined(_why_missing(results, probes or {}))
    return max((_attribute_path(arm, limit) for arm in arms), key=_severity)


class _Arms(NamedTuple):
    """The rates of one path by stage, the bytes of one sample where known, and why they cannot decide, if so."""

    path: str | None
    rates: dict[str, Measurement]
    sample_bytes: float | None
    stand_in: str | None
    doubt: str | None
    beside: tuple[Measurement, ...] = ()

    def rate(self, stage: str) -> float:
        return self.rates[stage].value


def _arms(measurements: Sequence[Measurement]) -> list[_Arms]:
    """One for each path; a measurement without a path (the resident rate, say) belongs to all of them."""
    ours = [m for m in measurements if m.metric in (RATE, BUSY) or m.metric.startswith(_BESIDE)]
    if not any(m.metric == RATE for m in ours):
        return []
    paths: list[str | None] = [*sorted({m.labels["path"] for m in ours if "path" in m.labels})]
    return [_arms_of(path, [m for m in ours if m.labels.get("path", path) == path]) for path in paths or [None]]


def _arms_of(path: str | None, measurements: Sequence[Measurement]) -> _Arms:
    stages = (*NEEDED, "transfer")
    staged = [(m.labels["stage"], m) for m in measurements if m.metric == RATE and m.labels.get("stage") in stages]
    rates = dict(staged)
    twice = next((f"the {stage} rate is there twice" for stage, m in staged if rates[stage] is not m), None)
    stand_ins = dict.fromkeys(m.stand_in for m in rates.values() if m.stand_in)
    size = next((m.value for m in measurements if m.metric == SAMPLE_BYTES and m.invalid is None), None)
    return _Arms(path, rates, size, ", ".join(stand_ins) or None, twice or _doubt(rates), tuple(measurements))


def _doubt(rates: Mapping[str, Measurement]) -> str | None:
    missing = [stage for stage in NEEDED if stage not in rates]
    if missing:
        return f"not measured: {', '.join(missing)}"
    invalid = dict.fromkeys(m.invalid for m in rates.values() if m.invalid is not None)
    if invalid:
        return "; ".join(invalid)
    if rates["resident"].value <= 0.0 or any(m.value < 0.0 for m in rates.values()):
        return "a rate of the feed is not a rate: the accelerator's own is not above zero, or another is negative"
    return None


def _attribute_path(arms: _Arms, limit: float) -> Attribution:
    if any(stage not in arms.rates for stage in NEEDED) or arms.rate("resident") <= 0.0:
        return _undetermined(arms.doubt or "", arms.path, arms.stand_in)
    c, p, f, s = (arms.rate(stage) for stage in NEEDED)
    parts = components(c, arms.rate("transfer") if "transfer" in arms.rates else None, p, f, s)
    bottleneck = "undetermined" if arms.doubt else _bottleneck(arms, parts, limit)
    answer = Attribution(
        bottleneck=bottleneck,
        starved=None if arms.doubt else bottleneck == "storage" and gap_interval(arms.rates)[0] > limit,
        starvation_ratio=1.0 - s / c,
        components=parts,
        demand_bytes_per_second=None if arms.sample_bytes is None else c * arms.sample_bytes,
        supply_bytes_per_second=None if arms.sample_bytes is None else f * arms.sample_bytes,
        supply_gap_ratio=supply_gap(c, f),
        valid=arms.doubt is None,
        explanation="",
        path=arms.path,
        stand_in=arms.stand_in,
    )
    slower = _slower(arms) if bottleneck == "accelerator" else None
    explanation = _undecided(arms.doubt) if arms.doubt else _sentence(answer, (c, f), limit, slower)
    advice = _advice(answer, arms.beside)
    if not arms.doubt and (why := _unsure(arms.rates, answer)):
        explanation, advice = f"{explanation[:-1]}, but this is not sure.", f"It is not sure, because {why}. {advice}"
    return _explained(answer, explanation, advice)


def _slower(arms: _Arms) -> float | None:
    """How much slower the accelerator computes while it is loaded, when that and not waiting is what it loses by.

    It is not idle then: its busy share stays high while its rate falls, and no faster feed would help.
    """
    lost = 1.0 - arms.rate("storage") / arms.rate("resident")
    busy = next((m for m in arms.beside if m.metric == BUSY and m.labels.get("stage") == "feed.storage"), None)
    slower = _one(arms.beside, INTERFERENCE)
    if lost < _NOT_STARVED or busy is None or slower is None or 1.0 - busy.value >= _NOT_STARVED:
        return None
    return slower.value


def _bottleneck(arms: _Arms, parts: Components, limit: float) -> Bottleneck:
    """The accelerator when nothing starves it; storage when it is the lowest ceiling and the gap is over the limit.

    Else the largest of the other parts, where overlap is the loader's: it reads and decodes one after the other.
    Storage that is the largest part but within the limit is a path that feeds its accelerator well enough.
    """
    c, p, f = arms.rate("resident"), arms.rate("preprocess"), arms.rate("fetch")
    if 1.0 - arms.rate("storage") / c < _NOT_STARVED or _slower(arms) is not None:
        return "accelerator"
    if f < _FED * c and f < p and supply_gap(c, f) > limit:
        return "storage"
    shares: dict[Bottleneck, float | None] = {
        "loader": parts.overlap,
        "preprocess": parts.preprocess,
        "transfer": parts.transfer,
        "accelerator": parts.storage,
    }
    return max(shares, key=lambda name: shares[name] or 0.0)


def gap_interval(rates: Mapping[str, Measurement]) -> tuple[float, float]:
    """The supply gap's interval from those of C and F by interval arithmetic: the worst and the best quotient F/C.

    Wider than a 95 % interval of the quotient would be, because both ends are taken at once: it claims less, never
    more.
    """
    c_low, c_high = rates["resident"].interval
    f_low, f_high = (max(bound, 0.0) for bound in rates["fetch"].interval)
    smallest = max(0.0, 1.0 - f_high / c_low) if c_low > 0.0 else 0.0
    return smallest, max(0.0, 1.0 - f_low / c_high)


def _unsure(rates: Mapping[str, Measurement], answer: Attribution) -> str:
    """Why the sentence is not sure, in words: what made wide an interval that lies on both sides of its limit."""
    c, s = (rates[stage].interval for stage in ("resident", "storage"))
    least, most = 1.0 - s[1] / max(c[0], 1e-300), 1.0 - max(s[0], 0.0) / c[1]
    open_ = answer.starved is False if answer.bottleneck == "storage" else least < _NOT_STARVED <= most
    said = (rates[stage].wide for stage in ("resident", "storage"))
    return "; ".join(why.partition(": ")[2] for why in said if why) if open_ else ""


def _severity(answer: Attribution) -> tuple[int, float]:
    rank = {"accelerator": 0, "undetermined": 1}.get(answer.bottleneck, 2)
    return rank, answer.starvation_ratio if answer.starvation_ratio is not None else 1.0


def _undetermined(why: str, path: str | None = None, stand_in: str | None = None) -> Attribution:
    nothing = Attribution(bottleneck="undetermined", valid=False, explanation="", path=path, stand_in=stand_in)
    return _explained(nothing, _undecided(why))


def _why_missing(results: Sequence[ProbeResult], probes: Mapping[str, str]) -> str:
    for result in results:
        if result.probe == probes.get(RATE) and result.outcome is not Outcome.OK:
            return f"the probe {result.probe} was {result.outcome.replace('_', ' ')}: {result.reason}"
    return "the rates of the feed were not measured"


# --- in one sentence of plain words with human units

_STOOD_IN = {
    "emulated": "an emulated accelerator stood in for a real one",
    "cpu": "the CPU stood in for the accelerator",
}
_WAYS = "feed_fetch_bytes_per_second"
#: Another way to read must be faster by so much to be worth saying: short arms on a shared device differ by less.
_BETTER = 1.10
_WORSE = 0.90


def _explained(answer: Attribution, text: str, advice: str = "") -> Attribution:
    """With the sentence, the path and the stand-in behind it, and what would help; at most 4000 characters."""
    notes = [f"path {answer.path}"] if answer.path else []
    notes += [_STOOD_IN.get(what, f"{what} stood in") for what in (answer.stand_in or "").split(", ") if what]
    noted = f"{text[:-1]} ({'; '.join(notes)})." if notes else text
    return answer.model_copy(update={"explanation": f"{noted} {advice}".strip()[:4000]})


def _undecided(doubt: str) -> str:
    return f"What the accelerator waits for could not be decided: {doubt}."


def _sentence(answer: Attribution, rates: tuple[float, float], limit: float, slower: float | None) -> str:
    """``rates``: demand and supply in samples a second, for want of a sample's size. ``slower``: as of `_slower`."""
    lost = _percent(answer.starvation_ratio)
    demand, supply, unit = answer.demand_bytes_per_second, answer.supply_bytes_per_second, "bytes_per_second"
    if demand is None or supply is None:
        (demand, supply), unit = rates, "samples_per_second"
    needs, gets, idle = human(demand, unit, 2), human(supply, unit, 2), f"stands idle {lost} of the time"
    match answer.bottleneck:
        case "storage":
            verb = "starves" if answer.starved else "seems to starve"
            return f"Storage {verb} the accelerator: it needs {needs} and gets {gets}, so it {idle}."
        case "preprocess":
            part = _alone(answer.components.preprocess, answer)
            return f"Decoding starves the accelerator, not storage: it {idle}{part}."
        case "transfer":
            part = _alone(answer.components.transfer, answer)
            return f"The copy to the accelerator starves it: it {idle}{part}."
        case "loader":
            return (
                f"The loader starves the accelerator: storage can deliver {gets} of the {needs} that it needs, but the "
                f"loader reads and decodes one after the other, so the accelerator {idle}."
            )
    if slower is not None:
        return (
            f"The accelerator is not kept waiting, but computes {_percent(slower)} slower while data is loaded beside "
            f"it (interference, not starvation): it loses {lost} of its own rate."
        )
    if (answer.starvation_ratio or 0.0) < _NOT_STARVED:
        return f"Nothing starves the accelerator: it needs {needs} and the path can deliver {gets}."
    return (
        f"The accelerator {idle}, mostly for storage, which is too little to call it starved (the limit is "
        f"{_percent(limit)})."
    )


def _alone(part: float | None, answer: Attribution) -> str:
    """What one part would cost by itself; nothing where noise makes it more than the whole."""
    if part is None or part > (answer.starvation_ratio or 0.0):
        return ""
    return f", and would for {_percent(part)} through this alone"


def _percent(ratio: float | None) -> str:
    return human(ratio or 0.0, "a_ratio", 2)


def _advice(answer: Attribution, beside: Sequence[Measurement]) -> str:
    if answer.bottleneck == "storage":
        return " ".join(_storage(beside, answer.demand_bytes_per_second))
    if answer.bottleneck == "preprocess":
        return _decode(beside)
    return _loader(beside) if answer.bottleneck == "loader" else ""


def _storage(beside: Sequence[Measurement], demand: float | None) -> Iterator[str]:
    ways = [m for m in beside if m.metric == _WAYS]
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
    return human(m.value, _WAYS, 2)


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
