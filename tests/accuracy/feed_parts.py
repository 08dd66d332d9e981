"""The parts of starvation against ceilings of known height: ``python -m tests.accuracy.feed_parts``.

Supply is an exact software rate, decoding a known time, the accelerator a virtual clock, so every ceiling is known:
C = 1 / step, P = min(C, workers / decode), F = supply. Claims: with storage three times faster than needed, its part
is at most 1 point whatever the number of workers; with both slow, each part is within 3 points of the formula's; well
supplied, starvation is under 1 point at steps from 20 ms to 1 ms.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from probes.feed.parse import parse
from tests.accuracy._feed import child

SAMPLE = 131_072
_ROW = ("arm", "turn", "warm", "shortest", "longest")
PARTS = ("transfer", "preprocess", "storage", "overlap")


def measured(demand: float, supply: float, decode: float, workers: int, batch: int = 8) -> dict[str, float]:
    """Each component, by the child and the parser as the product uses them."""
    rows = (
        ("transfer", 1, 0.3, 0.6, 0.6), ("preprocess", 1, 0.5, 3.0, 3.0), ("fetch", 1, 0.5, 2.0, 3.0),
        ("storage", 1, 1.0, 4.0, 6.0), ("storage", 2, 1.0, 4.0, 6.0),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        text = child(
            {
                "folder": folder, "accelerator": "emulated", "sample_bytes": SAMPLE, "sample_sd_bytes": 0,
                "samples_per_file": 1, "batch": batch, "count": 1, "demand": demand, "data_bytes": 64 << 20,
                "layout_seconds": 20.0, "deadline_seconds": 40.0, "workers": workers, "bucket": [supply * SAMPLE, 0.0],
                "decode": f"sleep:{decode}" if decode else "none",
                "schedule": [dict(zip(_ROW, row, strict=True)) for row in rows],
            }
        )  # fmt: skip
    parsed = parse(text, str(Path(folder)), "test")
    found = {m.labels["component"]: m.value for m in parsed.measurements if m.metric == "starvation_ratio"}
    doubts = {m.invalid for m in parsed.measurements if m.invalid}
    for doubt in doubts:
        print(f"    invalid: {doubt}")
    return found


def formula(demand: float, supply: float, decode: float, workers: int) -> dict[str, float]:
    """The contract's parts from the ceilings; reading and decoding one after the other within each worker."""
    c, f = demand, supply
    p = min(c, workers / decode) if decode else c
    return {"transfer": 0.0, "preprocess": (c - p) / c, "storage": (p - min(p, f)) / c}


def line(name: str, found: dict[str, float], wanted: dict[str, float], points: float) -> bool:
    held = all(abs(found[part] - value) <= points for part, value in wanted.items())
    shares = "  ".join(f"{part} {100 * found[part]:6.2f}" for part in ("total", *PARTS))
    truth = ", ".join(f"{part} {100 * value:.1f}" for part, value in wanted.items())
    print(f"{name:34s} {shares}  truth: {truth}  {'holds' if held else 'FAILS'}", flush=True)
    return held


def decode_alone(workers: int) -> bool:
    """Decoding keeps the accelerator at 80 %; storage could feed three of them."""
    demand = 400.0
    decode = workers / (0.8 * demand)
    found = measured(demand, 3.0 * demand, decode, workers)
    return line(f"decode slow, {workers} workers", found, {"storage": 0.0, "transfer": 0.0}, 0.01)


def both_slow(supply_ratio: float, decode_ratio: float) -> bool:
    demand, workers = 400.0, 8
    decode = workers / (decode_ratio * demand)
    found = measured(demand, supply_ratio * demand, decode, workers)
    wanted = formula(demand, supply_ratio * demand, decode, workers)
    return line(f"supply {supply_ratio:.0%}, decode {decode_ratio:.0%}", found, wanted, 0.03)


def well_supplied(step: float) -> bool:
    batch = 4
    found = measured(batch / step, 3.0 * batch / step, 0.0, 8, batch)
    return line(f"well supplied, steps of {1e3 * step:g} ms", found, {"total": 0.0}, 0.01)


def main() -> int:
    held = [well_supplied(step) for step in (0.020, 0.005, 0.001)]
    held += [decode_alone(workers) for workers in (1, 2, 4, 8)]
    held += [both_slow(0.5, 0.8), both_slow(0.6, 0.7), both_slow(0.8, 0.5)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
