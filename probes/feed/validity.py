"""Why a figure of the feed must not decide anything: each reason begins with a machine-readable word. Pure.

Limits and the traps behind them: reads that the page cache or a hole answered, a host too busy to run the readers, an
accelerator that was not itself, storage that paid out a burst credit. What was measured stays visible, and is INVALID.
A reason belongs to the arm that it was found in, and to what follows from that arm's rate. An arm whose turns are apart
is not void: its interval holds them (`probes.feed.rates`), and says why it is wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.judge.statistics import median
from bench.model import Code, code_of
from probes.feed.rates import tolerance
from probes.feed.records import Arm, Ready

#: Device bytes over consumed bytes under which the reads were not cold.
COLD_RATIO = 0.98
#: A reader thread's own waiting for a CPU, as a share of the arm ...
RUN_QUEUE_RATIO = 0.10
#: ... which is the host's doing, and not our own threads' among themselves, if others used so much of its CPUs.
OTHERS_RATIO = 0.10
#: The turns of the accelerator by itself: further apart is worth saying.
RESIDENT_RATIO = 0.02
#: Turns, or thirds of their windows, that are further apart are of no one rate, however wide the interval.
APART_RATIO = 0.20
#: The same where the CPU stands in, whose speed is its host's: on a shared machine of two cores it steps by a third
#: from one second to the next. The interval holds that, and no gate ever counts it.
CPU_APART_RATIO = 0.50
RESIDENCY_RATIO = 0.01
_FED = 0.99
#: Arms that read storage, and arms that answer other questions than the rates do.
_READING = ("fetch", "storage", "yardstick", "mend")
_BESIDE = ("mend", "yardstick")

#: The turns of each arm, and of each the rates of its windows.
Turns = Mapping[str, Sequence[Sequence[float]]]


def reasons(ready: Ready, arms: Sequence[Arm], turns: Turns, demand: float) -> dict[str, str]:
    """The reasons against each arm that has some, one of each kind; ``demand`` in samples a second."""
    found: dict[str, dict[Code | None, str]] = {}
    for arm, reason in _all_reasons(ready, arms, turns, demand):
        found.setdefault(arm, {}).setdefault(code_of(reason), reason)
    return {arm: "; ".join(by_code.values()) for arm, by_code in found.items()}


def widened(turns: Turns, demand: float) -> dict[str, str]:
    """What made an arm's interval wide, where its turns are further apart than is usual."""
    found = {}
    own, storage = _apart(_own(turns)), _apart(_fed(turns, demand))
    if own > RESIDENT_RATIO:
        found["resident"] = f"{Code.ACCELERATOR_DRIFTED}: {_drift(own)}"
    if storage > 0.0 and storage * max(_fed(turns, demand)) > tolerance(max(_fed(turns, demand)), demand):
        found["storage"] = f"{Code.NOT_REPEATABLE}: {_disagreement(storage)}"
    return found


def _all_reasons(ready: Ready, arms: Sequence[Arm], turns: Turns, demand: float) -> Iterator[tuple[str, str]]:
    if ready.unwritten_bytes:
        size = ready.unwritten_bytes / 1e6
        for name in _READING:
            yield name, f"{Code.UNWRITTEN}: {size:.0f} MB of the files were never written to a disk"
    # What the network brings others, as seen in the arm that reads from memory only.
    others = max((arm.network_bytes / arm.seconds for arm in arms if arm.arm == "preprocess"), default=0.0)
    fed = _fed(turns, demand)
    most = CPU_APART_RATIO if ready.accelerator == "cpu" else APART_RATIO
    for arm in arms:
        if arm.arm in ("fetch", "storage"):
            if not ready.bucket:
                yield from ((arm.arm, reason) for reason in _cold(arm, max(0.0, others) * arm.seconds))
            if arm.steady(demand) is None:
                yield arm.arm, f"{Code.TOO_SHORT}: the {arm.arm} arm ended before its window was full"
        # A busy host only makes the feed slower: an accelerator that it feeds all the same is fed.
        if arm.arm not in _BESIDE and (not fed or min(fed) < _FED * demand) and (reason := _contended(arm)):
            yield arm.arm, reason
    if (apart := _apart(_own(turns))) > most:
        yield "resident", f"{Code.ACCELERATOR_DRIFTED}: {_drift(apart)}"
    if (apart := _apart(fed)) > most:
        yield "storage", f"{Code.NOT_REPEATABLE}: {_disagreement(apart)}"
    yield from (("storage", reason) for reason in _falls([arm for arm in arms if arm.arm == "storage"], demand, most))


def _own(turns: Turns) -> list[float]:
    return [median(turn) for turn in turns.get("resident", ())]


def _fed(turns: Turns, demand: float) -> list[float]:
    """The storage arm's turns; what lies over the demand is as good as it."""
    return [min(sum(turn) / len(turn), demand) for turn in turns.get("storage", ())]


def _apart(rates: Sequence[float]) -> float:
    return (max(rates) - min(rates)) / max(rates) if rates and max(rates) > 0.0 else 0.0


def _drift(apart: float) -> str:
    return f"the accelerator's own rate was {apart:.1%} apart between its turns"


def _disagreement(apart: float) -> str:
    return f"the turns of the storage arm are {apart:.1%} apart"


def _cold(arm: Arm, others: float) -> Iterator[str]:
    """The reader's own device bytes, else those of the device below the path, else the network's; or what the page
    cache holds, where the file system has none of them."""
    if not arm.read_bytes:
        return
    own, device, resident = arm.own_device_bytes, arm.device_bytes, arm.resident_ratio
    blind = own == 0 and device is None
    came = own if own > 0 else arm.network_bytes - others if device is None else device
    ratio = max(0.0, came / arm.read_bytes)
    if ratio < COLD_RATIO and not (blind and resident is not None and resident <= RESIDENCY_RATIO):
        below = "network" if blind else "device"
        yield f"{Code.NOT_COLD}: only {ratio:.0%} of the bytes that the {arm.arm} arm read came from the {below}"
    if resident is not None and resident > RESIDENCY_RATIO:
        yield f"{Code.NOT_COLD}: {resident:.0%} of the files lay in the page cache before the {arm.arm} arm"


def _contended(arm: Arm) -> str | None:
    waited, others = arm.run_queue_wait_ratio, arm.others_cpu_ratio
    if waited is not None and waited > RUN_QUEUE_RATIO and others > OTHERS_RATIO:
        return (
            f"{Code.CONTENDED}: the {arm.arm} arm's threads waited {waited:.0%} of the time for a CPU, "
            f"while other processes used {others:.0%} of them"
        )
    return None


def _falls(arms: Sequence[Arm], demand: float, most: float) -> Iterator[str]:
    """A rate that falls to the end in every turn is no rate, and one that jumps about by more than ``most`` is none.

    A CPU that stands in falls by itself now and then, by less than a fifth.
    """
    least = APART_RATIO if most > APART_RATIO else 0.0
    ends = [found for arm in arms if (found := arm.steady(demand)) and not found.flat]
    windows = [[min(third, demand) for third in found.thirds] for found in ends]
    falling = len(windows) == len(arms) and all(a > b > c for a, b, c in windows)
    for window in windows:
        if _apart(window) > (least if falling else most):
            between = f"between {min(window):.4g} and {max(window):.4g} samples a second"
            yield f"{Code.NOT_STEADY}: the storage arm ran {between} to its end"
