"""Why a figure of the feed must not decide anything: each reason begins with a machine-readable word. Pure.

Limits and the traps behind them: reads that the page cache or a hole answered, a host too busy to run the readers, an
accelerator that was not itself, storage that paid out a burst credit. What was measured stays visible, and is INVALID.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.model import Code, code_of
from probes.feed.rates import steady, tolerance

Arm = Mapping[str, Any]

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


def reasons(ready: Mapping[str, Any], arms: Sequence[Arm], rates: Mapping[str, Sequence[float]]) -> list[str]:
    """The reasons against these arms, one of each kind; ``rates`` are the turns' rates by arm, in samples a second."""
    cold = [arm for arm in arms if arm["arm"] in ("fetch", "storage")]
    found = [
        _unwritten(ready),
        *(reason for arm in cold for reason in _cold(ready, arm, _others_bytes(arms, arm.get("seconds", 0.0)))),
    ]
    found += [_contended(arm) for arm in arms if arm["arm"] not in _BESIDE and not _fed(rates)]
    found += [_drifted(rates.get("resident", ())), _disagree(rates, _demand(rates))]
    found += [_not_flat(arm, _demand(rates)) for arm in cold]
    by_code: dict[Code | None, str] = {}
    for reason in found:
        if reason:
            by_code.setdefault(code_of(reason), reason)
    return list(by_code.values())


def _demand(rates: Mapping[str, Sequence[float]]) -> float:
    return sum(rates["resident"]) / len(rates["resident"]) if rates.get("resident") else float("inf")


def _fed(rates: Mapping[str, Sequence[float]]) -> bool:
    """A busy host only makes the feed slower: an accelerator that it feeds all the same is fed."""
    turns = rates.get("storage", ())
    return bool(turns) and min(turns) >= _FED * _demand(rates)


def _unwritten(ready: Mapping[str, Any]) -> str | None:
    if ready.get("unwritten_bytes"):
        return f"{Code.UNWRITTEN}: {ready['unwritten_bytes'] / 1e6:.0f} MB of the files were never written to a disk"
    return None


def _others_bytes(arms: Sequence[Arm], seconds: float) -> float:
    """What the network brings others in so many seconds: seen in the arm that reads from memory only."""
    quiet = [arm.get("network_bytes", 0) / arm["seconds"] for arm in arms if arm["arm"] == "preprocess"]
    return max(quiet, default=0.0) * seconds


def _cold(ready: Mapping[str, Any], arm: Arm, others: float) -> Iterable[str | None]:
    """The reader's own device bytes, else those of the device below the path, else the network's; or what the page
    cache holds, where the file system has none of them."""
    if ready.get("bucket") or not arm["read_bytes"]:
        return
    own, device = arm["own_device_bytes"], arm.get("device_bytes")
    came = own if own > 0 else arm.get("network_bytes", 0) - others if device is None else device
    ratio = max(0.0, came / arm["read_bytes"])
    if ratio < COLD_RATIO and not (own == 0 and device is None and _not_resident(arm)):
        below = "network" if own == 0 and device is None else "device"
        yield f"{Code.NOT_COLD}: only {ratio:.0%} of the bytes that the {arm['arm']} arm read came from the {below}"
    resident = arm.get("resident_ratio")
    if resident is not None and resident > RESIDENCY_RATIO:
        yield f"{Code.NOT_COLD}: {resident:.0%} of the files lay in the page cache before the {arm['arm']} arm"


def _not_resident(arm: Arm) -> bool:
    resident = arm.get("resident_ratio")
    return resident is not None and resident <= RESIDENCY_RATIO


def _contended(arm: Arm) -> str | None:
    waited = arm.get("run_queue_wait_ratio")
    others = arm.get("others_cpu_ratio", 1.0)
    if waited is not None and waited > RUN_QUEUE_RATIO and others > OTHERS_RATIO:
        return (
            f"{Code.CONTENDED}: the {arm['arm']} arm's threads waited {waited:.0%} of the time for a CPU, "
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


def _disagree(rates: Mapping[str, Sequence[float]], demand: float) -> str | None:
    turns = [min(rate, demand) for rate in rates.get("storage", ())]
    if len(turns) < 2 or max(turns) <= 0:
        return None
    apart = max(turns) - min(turns)
    if apart > tolerance(max(turns), demand):
        return f"{Code.NOT_REPEATABLE}: the two turns of the storage arm are {apart / max(turns):.1%} apart"
    return None


def _not_flat(arm: Arm, demand: float) -> str | None:
    found = steady(arm["curve"], arm["grid_seconds"], arm["warm_seconds"], arm["shortest_seconds"], demand)
    if found is None:
        return f"{Code.TOO_SHORT}: the {arm['arm']} arm ended before its window was full"
    if not found.flat and arm["arm"] == "storage":
        slowest, fastest = min(found.thirds), max(found.thirds)
        between = f"between {slowest:.4g} and {fastest:.4g} samples a second"
        return f"{Code.NOT_STEADY}: the {arm['arm']} arm ran {between} to its end"
    return None
