"""Do this node's cores decode a data set as fast as its accelerators take it? Two probes' figures put together. Pure.

The feed knows what one accelerator, never kept waiting, consumes (bytes a second: its resident rate times the size of
its samples); the data's survey knows what a core decodes of the set, and how many cores may. A set that is valid, and
decoded more slowly than it is consumed, starves accelerators on any storage: the prep stalls of Mohan et al.,
"Analyzing and Mitigating Data Stalls in DNN Training", VLDB 2021. Cores that share caches and hyper-threads decode less
together than alone, so the ratio is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.judge.attribution import RATE, SAMPLE_BYTES
from bench.judge.hardware import fed_together
from bench.model import Measurement, Run

DECODING = "decoding"
HEADROOM = "data_decode_headroom_ratio"
_DECODED, _CORES = "data_decode_bytes_per_second", "data_available_cores"


def headrooms(run: Run) -> Iterator[Measurement]:
    """One for each data set, against the path on which an accelerator consumed most."""
    demand = max(_demands(run), key=lambda one: one.value, default=None)
    cores = {m.labels["data"]: m.value for m in run.find(_CORES)}
    for decoded in run.find(_DECODED):
        data = decoded.labels["data"]
        if demand is None or not cores.get(data):
            continue
        taken: dict[str, str] = {k: demand.labels[k] for k in ("stand_in", "accelerator") if k in demand.labels}
        (low, high), (least, most) = decoded.interval, demand.interval
        yield Measurement(
            metric=HEADROOM,
            value=cores[data] * decoded.value / demand.value,
            interval=(cores[data] * low / most, cores[data] * high / least),
            samples=decoded.samples,
            labels={"data": data, **taken},
            invalid="; ".join(dict.fromkeys(m.invalid for m in (decoded, demand) if m.invalid)) or None,
        )


def _demands(run: Run) -> Iterator[Measurement]:
    """Bytes a second of one accelerator, by path; several that were fed together consumed the resident rate."""
    sizes = {m.labels.get("path"): m.value for m in run.find(SAMPLE_BYTES)}
    for rate in run.find(RATE, stage="resident"):
        factor = sizes.get(rate.labels.get("path"), 0.0) / fed_together(run)
        if factor > 0.0 and rate.interval[0] > 0.0:
            low, high = rate.interval
            found = {"value": rate.value * factor, "interval": (low * factor, high * factor)}
            yield rate.model_copy(update=found)
