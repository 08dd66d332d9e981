"""Several runs on one page: verdicts side by side, and what differs of nodes and figures, as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.judge.baseline.comparison import Difference
from bench.model import Measurement, Run
from bench.show.text import clean
from bench.show.wording import label_words, quantity, score, title, when
from bench.units import human

Row = Sequence[str]
_MOST_DIFFERENCES = 60


def comparison(runs: Sequence[Run], differences: Sequence[Difference] | None = None) -> dict[str, Any]:
    """Verdicts side by side, facts of the nodes that differ, figures that differ by more than noise."""
    apart = list(_differences(runs)) if differences is None else list(_compared(differences))
    return {
        "heads": [[clean(run.node.hostname, 60), when(run.started_at), clean(run.id, 20)] for run in runs],
        "verdicts": _decisions(runs),
        "facts": list(_facts(runs)),
        "header": ["figure", *(clean(r.node.hostname, 60) for r in runs), *([] if differences is None else _CHANGE)],
        "figures": apart[:_MOST_DIFFERENCES],
        "more": max(0, len(apart) - _MOST_DIFFERENCES),
        "basis": _BASIS if differences is None else "",
    }


_CHANGE = ["change", "", "by"]
_BASIS = "Their 95 % intervals have no point in common. What is for the record only is left out."


def _compared(differences: Sequence[Difference]) -> Iterator[Row]:
    for d in differences:
        if d.verdict != "same":
            words = ", ".join(label_words(k, v) for k, v in d.labels.items() if k not in ("path", "stand_in"))
            name = title(d.metric) + (f" ({words})" if words else "")
            change = "" if d.change_ratio is None else f"{100 * d.change_ratio:+.1f} %"
            yield [name, human(d.a, d.metric), human(d.b, d.metric), change, d.verdict, clean(d.basis)]


def _decisions(runs: Sequence[Run]) -> list[list[Any]]:
    profiles = dict.fromkeys(v.profile for run in runs for v in run.verdicts)
    rows = []
    for profile in profiles:
        found = [next((v for v in run.verdicts if v.profile == profile), None) for run in runs]
        rows.append(
            [clean(profile, 80), [(v.decision.value, score(v.score)) if v else ("", "not judged") for v in found]]
        )
    return rows


def _facts(runs: Sequence[Run]) -> Iterator[Row]:
    flat = [dict(_flat(run.node.facts)) for run in runs]
    for name in dict.fromkeys(name for facts in flat for name in facts):
        values = [facts.get(name, "–") for facts in flat]
        if len(set(values)) > 1 and name.split(".")[0] not in ("boot_id", "machine_id"):
            yield [name, *values]


def _flat(facts: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        name = f"{before}{clean(str(key), 80)}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, clean(str(value), 120)


def _differences(runs: Sequence[Run]) -> Iterator[Row]:
    """Two figures differ when their 95 % intervals have no point in common. Those for the record only do not count."""
    tables = [{_key(m): m for m in run.measurements() if m.invalid is None} for run in runs]
    for key in dict.fromkeys(key for table in tables for key in table):
        found = [table.get(key) for table in tables]
        known = [m for m in found if m is not None]
        if len(known) > 1 and max(m.interval[0] for m in known) > min(m.interval[1] for m in known):
            metric, labels = key
            words = ", ".join(label_words(k, v) for k, v in labels if k not in ("path", "stand_in"))
            cells = ["–" if m is None else quantity(m.value, m.interval, metric) for m in found]
            yield [title(metric) + (f" ({words})" if words else ""), *cells]


def _key(m: Measurement) -> tuple[str, tuple[tuple[str, str], ...]]:
    return m.metric, tuple(sorted(m.labels.items()))
