"""Why a figure of the feed must not decide anything: each reason begins with a machine-readable word. Pure.

Limits and the traps behind them: reads that the page cache or a hole answered, a host too busy to run the readers, an
accelerator that was not itself, storage that paid out a burst credit. What was measured stays visible, and is INVALID.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from bench.model import Code, code_of
from probes.feed.rates import tolerance
from probes.feed.records import Arm, Ready

#: Device bytes over consumed bytes under which the reads were not cold.
COLD_RATIO = 0.98
#: A reader thread's own waiting for a CPU, as a share of the arm ...
RUN_QUEUE_RATIO = 0.10
#: ... which is the host's doing, and not our own threads' among themselves, if others used so much of its CPUs.
OTHERS_RATIO = 0.10
#: The accelerator before and after.
RESIDENT_RATIO = 0.02
RESIDENCY_RATIO = 0.01
_FED = 0.99
#: Arms that answer other questions than the rates do.
_BESIDE = ("mend", "yardstick")


def reasons(ready: Ready, arms: Sequence[Arm], rates: Mapping[str, Sequence[float]]) -> list[str]:
    """The reasons against these arms, one of each kind; ``rates`` are the turns' rates by arm, in samples a second."""
    by_code: dict[Code | None, str] = {}
    for reason in _all_reasons(ready, arms, rates):
        if reason:
            by_code.setdefault(code_of(reason), reason)
    return list(by_code.values())


def _all_reasons(ready: Ready, arms: Sequence[Arm], rates: Mapping[str, Sequence[float]]) -> Iterator[str | None]:
    demand = sum(rates["resident"]) / len(rates["resident"]) if rates.get("resident") else math.inf
    turns = rates.get("storage", ())
    cold = [arm for arm in arms if arm.arm in ("fetch", "storage")]
    if ready.unwritten_bytes:
        yield f"{Code.UNWRITTEN}: {ready.unwritten_bytes / 1e6:.0f} MB of the files were never written to a disk"
    # What the network brings others, as seen in the arm that reads from memory only.
    others = max((arm.network_bytes / arm.seconds for arm in arms if arm.arm == "preprocess"), default=0.0)
    for arm in cold if not ready.bucket else ():
        yield from _cold(arm, max(0.0, others) * arm.seconds)
    # A busy host only makes the feed slower: an accelerator that it feeds all the same is fed.
    if not turns or min(turns) < _FED * demand:
        yield from (_contended(arm) for arm in arms if arm.arm not in _BESIDE)
    yield _drifted(rates.get("resident", ()))
    yield _disagree([min(rate, demand) for rate in turns], demand)
    yield from (_not_flat(arm, demand) for arm in cold)


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


def _drifted(resident: Sequence[float]) -> str | None:
    if len(resident) < 2 or not min(resident) > 0:
        return None
    change = (max(resident) - min(resident)) / max(resident)
    if change > RESIDENT_RATIO:
        return f"{Code.ACCELERATOR_DRIFTED}: its own rate was {change:.1%} apart before and after the other arms"
    return None


def _disagree(turns: Sequence[float], demand: float) -> str | None:
    if len(turns) < 2 or max(turns) <= 0:
        return None
    apart = max(turns) - min(turns)
    if apart > tolerance(max(turns), demand):
        return f"{Code.NOT_REPEATABLE}: the two turns of the storage arm are {apart / max(turns):.1%} apart"
    return None


def _not_flat(arm: Arm, demand: float) -> str | None:
    found = arm.steady(demand)
    if found is None:
        return f"{Code.TOO_SHORT}: the {arm.arm} arm ended before its window was full"
    if not found.flat and arm.arm == "storage":
        slowest, fastest = min(found.thirds), max(found.thirds)
        between = f"between {slowest:.4g} and {fastest:.4g} samples a second"
        return f"{Code.NOT_STEADY}: the {arm.arm} arm ran {between} to its end"
    return None
