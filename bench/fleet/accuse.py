"""Who is slower than its siblings, and what all of them do worse than before; each confirmed by a second measurement.

The second one is separate when it is of other runs: a folder that holds the same runs again confirms nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.fleet.join.collect import Sorter, files, read
from bench.fleet.weigh import Weighed, weigh_answer
from bench.judge.fleet.model import Outlier, Shift
from bench.judge.fleet.outliers import Keys, Table, outliers, shifts
from bench.judge.fleet.ports import ports

if TYPE_CHECKING:
    from bench.fleet.join.join import Judgement, Known


def accused_of(found: Sequence[Weighed], by: Judgement, known: Known) -> tuple[list[Outlier], list[Shift]]:
    """Outliers of the sweep and of the pairs, and what moved on the whole fleet."""
    runs = {weighed.outcome.run for weighed in found}
    again = [w for w in _measured_in(known.again, found, by, known) if w.outcome.run not in runs]
    before = [w for w in _measured_in(known.before, found, by, known) if w.outcome.run not in runs]
    moved = shifts(_table(found), _table(before), by.metrics, _table(again)) if before else []
    return [*_outliers(found, again, by), *ports(known.pairs)], moved


def _outliers(found: Sequence[Weighed], second: Sequence[Weighed], by: Judgement) -> list[Outlier]:
    """By the first measurement; confirmed where the second, with the first of those who have none, says the same."""
    again = {weighed.outcome.host: weighed for weighed in second}
    both = [again.get(weighed.outcome.host, weighed) for weighed in found]
    marks = {_mark(o) for o in outliers(_table(both), by.metrics) if o.level == "act" and o.host in again}
    first = outliers(_table(found), by.metrics)
    return [o.model_copy(update={"confirmed": True}) if _mark(o) in marks else o for o in first]


def _measured_in(folder: Path | None, found: Sequence[Weighed], by: Judgement, known: Known) -> list[Weighed]:
    """What the same hosts measured at another time; of several runs of a host the last that came."""
    if folder is None or not folder.is_dir():
        return []
    sorter, keys = Sorter([weighed.outcome.host for weighed in found], known.hostnames), Keys()
    placed = (sorter.place(read(path)) for path in files(folder))
    weighed = [weigh_answer(host, answer, by, keys) for host, answer in placed if host is not None]
    return list({one.outcome.host: one for one in sorted(weighed, key=lambda one: one.started_at)}.values())


def _table(found: Iterable[Weighed]) -> Table:
    table: Table = {}
    for weighed in found:
        for key, sample in weighed.figures:
            table.setdefault(key, []).append(sample)
    return table


def _mark(outlier: Outlier) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    return outlier.host, outlier.part, outlier.metric, tuple(sorted(outlier.labels.items()))
