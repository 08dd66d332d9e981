"""What ``--baseline`` adds to a verdict: the run against this node's own nights, and the second measurement."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cli.output import note
from bench.model import Code
from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.judge.baseline.series import History, Key, Regression
    from bench.judge.profile import Profile
    from bench.model import Decision, Metric, Run
    from bench.store.runs import Store

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True, slots=True)
class Compared:
    """A judged run with its regressions in the verdicts, and the regressions themselves, one a series."""

    run: Run
    regressions: tuple[Regression, ...] = ()


def against_baseline(
    judged: Run,
    profiles: Sequence[Profile],
    store: Store,
    metrics: Mapping[str, Metric],
    asked: float | None = None,
    *,
    every: bool = False,
) -> Compared:
    """Compare a judged run with its node's nights in ``store``, and make its verdicts as bad as what is found.

    ``asked``: the drop that must be seen (``--detect``), 0.2 unless told. ``every``: also the series that gate none of
    the profiles. The verdicts must be of the profiles, in their order. Raises CliError when the pins cannot be read or
    the run's start is not a time.
    """
    from bench.judge.baseline.prediction import Policy
    from bench.judge.baseline.series import (
        gating,
        informative,
        judge_series,
        key_of,
        regressions,
        with_regressions,
        worst,
    )

    policy = Policy() if asked is None else Policy(asked=asked)
    series = [[key_of(m) for _, m in gating(judged, profile, metrics)] for profile in profiles]
    deciding = {key for own in series for key in own[: policy.most_series]}
    others = informative(judged, profiles, metrics) if every else []
    history = _history(store, judged, [*(key for own in series for key in own), *map(key_of, others)], deciding)
    found = [regressions(judged, profile, history, metrics, policy) for profile in profiles]
    pairs = zip(judged.verdicts, found, strict=True)
    verdicts = tuple(with_regressions(verdict, entries) for verdict, entries in pairs)
    shown = [judge_series(judged, m, profiles[0], history, metrics[m.metric], policy) for m in others]
    entries = [*worst(found), *(entry.model_copy(update={"gating": False}) for entry in shown)]
    return Compared(judged.model_copy(update={"verdicts": verdicts}), tuple(entries))


def _history(store: Store, run: Run, keys: Sequence[Key], pooled: Collection[Key]) -> History:
    from bench.store.errors import UnusableRun
    from bench.store.history import history_of
    from bench.store.index import Index

    try:
        with Index(store.root, warn=note) as index:
            return history_of(index, run, list(dict.fromkeys(keys)), pooled)
    except UnusableRun as error:
        raise CliError(str(error)) from error
    except ValueError as error:
        raise CliError(f"run {run.id}: started_at is not an RFC 3339 time: {error}") from error


def suspicious(compared: Compared, owners: Mapping[str, str]) -> list[str]:
    """The probes to measure again: those of gating series that are suspect or regressed. Empty when all is well."""
    bad = [entry for entry in compared.regressions if entry.gating and entry.status in ("suspect", "regressed")]
    return sorted({owners[entry.metric] for entry in bad if entry.metric in owners})


def confirm(
    first: Run,
    compare: Callable[[Run], Compared],
    owners: Mapping[str, str],
    again: Callable[[Sequence[str]], None],
    pause: Callable[[], None],
) -> Compared:
    """The first run against the baseline; and when it is suspect, a second measurement of the probes concerned.

    ``compare`` compares a stored run; ``pause`` waits (`pause_seconds`); ``again`` measures these probes in a fresh
    process and stores that run, whose ``request.options["confirms"]`` is the first run's id. The answer is on the first
    run, which both then decide.
    """
    compared = compare(first)
    probes = suspicious(compared, owners)
    if not probes:
        return compared
    note(f"worse than this node's nights: measuring again after a pause: {', '.join(probes)}")
    pause()
    again(probes)
    return compare(first)


def pause_seconds(effort: str) -> float:
    """How long to let the node rest before the second measurement: 30 s by the research, less for a quick look."""
    return {"quick": 5.0, "standard": 30.0, "thorough": 60.0}[effort]


def lines(compared: Compared) -> list[str]:
    """For the screen: one line a series that is not simply well, and one that counts the others."""
    from bench.store.errors import one_line
    from bench.units import human

    told = [entry for entry in compared.regressions if entry.reason]
    found = [
        f"  {entry.status.value:<12} {_series(entry)}  {human(entry.observed, entry.metric)}"
        + (f", expected {human(entry.expected, entry.metric)}" if entry.expected is not None else "")
        + f"; {entry.reason.partition(': ')[2]}"
        + ("" if entry.gating else " (shown, does not decide)")
        for entry in told
    ]
    quiet = len(compared.regressions) - len(told)
    return [
        "Against this node's nights:",
        *map(one_line, found),
        *([f"  ok           {quiet} series"] if quiet else []),
    ]


def _series(entry: Regression) -> str:
    labels = ",".join(f"{name}={value}" for name, value in sorted(entry.labels.items()))
    return f"{entry.metric}{{{labels}}}" if labels else entry.metric


def duration(text: str, option: str) -> float:
    """``26h``, ``10m``, ``90`` (seconds) as seconds. Raises CliError that names the option."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise CliError(f"{option} {text}: must be a number with s, m, h, d or w behind it, 26h say")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def ratio(text: str, option: str) -> float:
    """``20%`` or ``0.2`` as 0.2. Raises CliError that names the option."""
    try:
        value = float(text.rstrip("% ")) / (100.0 if text.rstrip().endswith("%") else 1.0)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise CliError(f"{option} {text}: must be a share between 0 and 1, 3% or 0.03 say")
    return value


def too_old(run: Run, max_age_seconds: float, now: float) -> str | None:
    """Why a stored run may not answer any more: ``stale: ...``; None when it is fresh. A run of the future is not."""
    return too_old_since(run.started_at, f"run {run.id}", max_age_seconds, now)


def too_old_since(started_at: str, whose: str, max_age_seconds: float, now: float) -> str | None:
    """The same for anything that began at that time (RFC 3339)."""
    from bench.store.index import seconds_of

    try:
        age = now - seconds_of(started_at)
    except ValueError:
        return f"{Code.STALE}: started_at of {whose} is not a time"
    if age > max_age_seconds:
        return f"{Code.STALE}: measured {age / 3600.0:.1f} h ago, at most {max_age_seconds / 3600.0:.1f} h are allowed"
    if age < -300.0:
        return f"{Code.STALE}: dated {-age / 3600.0:.1f} h in the future; check the node's clock"
    return None


def fresh(compared: Compared, max_age_seconds: float) -> Compared:
    """The same where the run is young enough; else INCONCLUSIVE, with its age as the reason."""
    import time

    from bench.judge.baseline.series import doubted

    reason = too_old(compared.run, max_age_seconds, time.time())
    if reason is None:
        return compared
    note(reason)
    verdicts = tuple(doubted(verdict, reason) for verdict in compared.run.verdicts)
    return Compared(compared.run.model_copy(update={"verdicts": verdicts}), compared.regressions)


def status(decision: Decision, on_inconclusive: str | None) -> int:
    """The exit status, with INCONCLUSIVE read as the caller asked: ``fail`` 1, ``pass`` 0, else the contract's 3."""
    from bench.judge.gate import exit_status

    found = exit_status(decision)
    return {"fail": 1, "pass": 0}.get(on_inconclusive or "", found) if found == 3 else found
