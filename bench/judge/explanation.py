"""The one sentence on starvation, in plain words with human units."""

from __future__ import annotations

from bench.model import Attribution
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
    mend: str = "",
) -> str:
    """What ``answer`` says, for a person; ``rates`` stand in for bytes where a sample's size is not known.

    ``doubt`` is why it could not be decided, ``slower`` the share by which loading slows the accelerator when that is
    all that it loses, ``mend`` what would help. At most 4000 characters, as the document allows.
    """
    if doubt is not None or rates is None:
        text = f"What the accelerator waits for could not be decided: {doubt or 'the feed was not measured'}."
    elif slower is not None:
        text = _slowed(answer, slower)
    else:
        text = _decided(answer, rates, limit)
    return f"{_finished(text, answer)} {mend}".strip()[:4000]


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
    if answer.demand_bytes_per_second is not None and answer.supply_bytes_per_second is not None:
        pair, metric = (answer.demand_bytes_per_second, answer.supply_bytes_per_second), "demand_bytes_per_second"
    else:
        pair, metric = rates, "demand_samples_per_second"
    return human(pair[0], metric, 2), human(pair[1], metric, 2)


def _percent(ratio: float | None) -> str:
    return human(ratio or 0.0, "a_ratio", 2)


def _finished(text: str, answer: Attribution) -> str:
    """The sentence with the path and the stand-in behind it, where there are any."""
    notes = [f"path {answer.path}"] if answer.path else []
    notes += [_STOOD_IN.get(what, f"{what} stood in") for what in (answer.stand_in or "").split(", ") if what]
    return f"{text[:-1]} ({'; '.join(notes)})." if notes else text
