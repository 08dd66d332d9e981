"""What ``bench run`` adds for a night to be trusted: a quiet node, precision, a second look at what is worse."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.cli.output import note

if TYPE_CHECKING:
    from bench.cli.regression import Compared
    from bench.judge.profile import Profile
    from bench.measure.tools import Signals
    from bench.model import Effort, Metric, Request, Run
    from bench.store.runs import Store

_AGAIN_FACTOR, _AGAIN_SECONDS = 2.0, 600.0


def busy_now(effort: Effort, signals: Signals, patience_seconds: float | None = None) -> tuple[str, ...]:
    """What is busy on this node after waiting for quiet as long as that (default: by effort).

    A signal ends the wait; the runner then sees it, and stores an interrupted run.
    """
    from bench.measure import quiet, tools
    from bench.measure.probe import Interrupted

    window = quiet.WINDOW_SECONDS[effort]
    patience = quiet.PATIENCE_SECONDS[effort] if patience_seconds is None else patience_seconds

    def look() -> tuple[str, ...]:
        return quiet.look(window, lambda seconds: tools.pause(seconds, signals))

    try:
        busy = quiet.wait_until_quiet(patience, look, time.monotonic, note)
    except Interrupted:
        return ()
    if busy:
        note(f"contended: {', '.join(busy)}; measured all the same, and nothing is decided; --wait-quiet 10m waits")
    return busy


def compared(
    judged: Run,
    profiles: Sequence[Profile],
    store: Store,
    owners: Mapping[str, str],
    signals: Signals,
    metrics: Mapping[str, Metric],
) -> Compared:
    """The run against its node's nights; what is worse is measured again after a pause, in a process of its own."""
    from bench.cli import regression
    from bench.measure import tools
    from bench.measure.probe import Interrupted

    def compare(run: Run) -> Compared:
        return regression.against_baseline(run, profiles, store, metrics)

    def again(probes: Sequence[str]) -> None:
        _measure_again(judged, probes, store, signals)

    pause = regression.pause_seconds(judged.request.effort.value)
    try:
        return regression.confirm(judged, compare, owners, again, lambda: tools.pause(pause, signals))
    except Interrupted:
        return compare(judged)  # a suspicion that nothing has confirmed


def _measure_again(first: Run, probes: Sequence[str], store: Store, signals: Signals) -> None:
    """``bench run`` of these probes only, as the first was asked. What fails there confirms nothing, and is told."""
    from bench.measure import tools
    from bench.measure.probe import ProbeError

    spent = sum(result.duration_seconds for result in first.results)
    argv = [*_argv(first.request, probes), "--results", str(store.root.absolute()), "--confirms", first.id]
    try:
        done = tools.run(
            [sys.executable, "-m", "bench", *argv],
            timeout=_AGAIN_FACTOR * spent + _AGAIN_SECONDS,
            signals=signals,
            env=tools.python_environment(),
        )
    except ProbeError as error:
        note(f"the second measurement failed: {error.reason}")
        return
    if done.returncode not in (0, 1, 3):
        note(f"the second measurement failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


def _argv(request: Request, probes: Sequence[str]) -> list[str]:
    """The command line that asks for the same again, of some probes."""
    words = ["run", "--quiet", "--exit-zero", "--effort", request.effort.value, "--accelerator", request.accelerator]
    for option, values in (("--probe", probes), ("--storage", request.storage), ("--peer", request.peers)):
        words += [word for value in values for word in (option, value)]
    own = ("confirms", "quiet_check")
    options: dict[str, Any] = {k: v for k, v in request.options.items() if isinstance(v, str) and k not in own}
    words += ["--no-quiet-check"] if request.options.get("quiet_check") == "off" else []
    return words + [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]


def to_converge(profiles: Sequence[Profile], owners: Mapping[str, str], precision: float) -> Callable[[Run], list[str]]:
    """Which probes to measure again for ``--precision``: those of gating medians whose interval is still wider."""

    def wide(run: Run) -> list[str]:
        return sorted({owners[m.metric] for m in _gated(run, profiles) if m.metric in owners and _width(m) > precision})

    return wide


def convergence(run: Run, profiles: Sequence[Profile], precision: float) -> list[str]:
    """One line: how many gating medians are as precise as asked, and the widest that is not."""
    from bench.store.errors import one_line

    found = sorted(_gated(run, profiles), key=_width, reverse=True)
    wide = [m for m in found if _width(m) > precision]
    head = f"precision {100 * precision:g} %: {len(found) - len(wide)} of {len(found)} medians converged"
    if not wide:
        return [head]
    labels = ",".join(f"{k}={v}" for k, v in sorted(wide[0].labels.items()))
    return [head, one_line(f"not converged: {wide[0].metric}{{{labels}}} +-{100 * _width(wide[0]):.1f} %")]


def _gated(run: Run, profiles: Sequence[Profile]) -> list[Any]:
    """The measurements with repeats that a required gate looks at, each once."""
    found = [
        m
        for profile in profiles
        for gate in profile.gates
        if gate.required
        for m in run.find(gate.metric, **gate.labels)
        if m.repeats
    ]
    return list({id(m): m for m in found}.values())


def _width(measurement: Any) -> float:
    """Half of the 95 % interval of the median (order statistics from six repeats on), over the median."""
    low, high = measurement.interval
    return float((high - low) / 2.0 / abs(measurement.value)) if measurement.value else float(high > low)


def patience(text: str | None) -> float | None:
    """``--wait-quiet 10m`` in seconds; None where it was not given."""
    from bench.cli.regression import duration

    return None if text is None else duration(text, "--wait-quiet")


def precision(text: str | None) -> float | None:
    """``--precision 3%`` as 0.03; None where it was not given."""
    from bench.cli.regression import ratio

    return None if text is None else ratio(text, "--precision")
