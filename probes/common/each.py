"""What a probe measures one after the other: peers, data sets, directories."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.measure.probe import Context, ProbeError
from bench.model import Measurement


def each(
    ctx: Context, named: Sequence[str], measure: Callable[[int, str], Sequence[Measurement]], *, show: bool = False
) -> list[Measurement]:
    """What ``measure`` found of each. One that fails is a warning if another did not, else the first one's error.

    ``show``: the warning begins with its name.
    """
    found: list[Measurement] = []
    failures: list[ProbeError] = []
    for number, name in enumerate(named):
        try:
            found += measure(number, name)
        except ProbeError as error:
            failures.append(error)
            ctx.warn(f"{name}: {error.reason}" if show else error.reason)
    if failures and not found:
        raise failures[0]
    return found
