"""The whole instrument against an exact rate in software: how far off is it on this machine, right now?

No disk and no privilege: the readers are served by a token bucket whose rate is known, so the starvation of an emulated
ResNet-50 on an H100 is known too, and what the instrument says minus that is its error.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.measure.probe import Check, ProbeError, Tools
from probes.feed.parse import parse
from probes.feed.plan import Row, Spec
from probes.feed.workloads import resolve

#: Shares of the demand that the bucket leaves out.
TRUTHS = (0.0, 0.2, 0.5, 0.8)
#: What standard effort promises, in shares of one.
LIMIT = 0.01
_SCHEDULE = (
    Row("transfer", 1, 0.2, 0.4, 0.4),
    Row("preprocess", 1, 0.2, 0.6, 0.6),
    Row("fetch", 1, 0.5, 1.5, 2.5),
    Row("storage", 1, 0.7, 4.0, 6.0),
)
_TIMEOUT = 60.0


def calibrate(tools: Tools) -> Sequence[Check]:
    """One line for each known starvation, with the error; under a minute in all."""
    return [_check(tools, truth) for truth in TRUTHS]


def _check(tools: Tools, truth: float) -> Check:
    name = f"feed at {truth:.0%} starvation"
    spec = specification(truth).model_dump_json()
    try:
        done = tools.python("probes.feed.load.main", spec, name=f"calibrate-{truth:.0%}", timeout=_TIMEOUT)
        parsed = parse(done.stdout, "calibration", "")
    except ProbeError as error:
        return Check(name, False, error.reason, error.remedy)
    total = next(m for m in parsed.measurements if m.metric == "starvation_ratio" and m.labels["component"] == "total")
    error_points = 100.0 * (total.value - truth)
    ok = abs(total.value - truth) <= LIMIT and total.invalid is None
    detail = f"measured {total.value:.2%}, an error of {error_points:+.2f} points" + (
        f" ({total.invalid})" if total.invalid else ""
    )
    return Check(name, ok, detail, None if ok else "calm the node (see `bench doctor`), then calibrate again")


def specification(truth: float) -> Spec:
    """A bucket that lacks ``truth`` of the demand, or gives thrice the demand for 0."""
    work = resolve("emulated:resnet50-h100").workload
    demand = work.demand_samples_per_second or 1.0
    rate = demand * work.sample_bytes * (1.0 - truth if truth else 3.0)
    return Spec(
        folder="/", accelerator="emulated", sample_bytes=work.sample_bytes, samples_per_file=work.samples_per_file,
        batch=work.batch, demand=demand, data_bytes=256 << 20, layout_seconds=1.0, deadline_seconds=20.0,
        bucket=(rate, 0.0), schedule=_SCHEDULE,
    )  # fmt: skip
