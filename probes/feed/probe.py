"""What the accelerator waits for: the same consuming loop with its input ever further away, and reading alone.

Five arms on the same data, sizes and order: *resident* (the input is on the device), *transfer* (copied to it),
*preprocess* (decoded from memory, then copied), *fetch* (read alone) and *storage* (read cold, decoded, copied,
consumed). Their rates are falling ceilings, and the differences say what starves the accelerator and by how much:
use them to decide whether storage, the decode, the copy or the loader must become faster, before a GPU stands idle.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import budget
from bench.measure.probe import Check, Context, Option, Probe, ProbeError, Tools
from bench.model import Code, Effort, Measurement, Request
from probes.common.metrics import Between, metrics
from probes.feed.plan import LOADERS, PATTERNS, Row, Spec, schedule

if TYPE_CHECKING:
    from probes.feed.parse import Parsed
    from probes.feed.workloads import Accelerator

_BETWEEN = Between(
    "Our choice: rates as of storage, which they stand on. A share of waiting is storage's rate over one that took "
    "turns with it: two equal loads by turns differed by 0.4 to 1.6 % on a quiet machine.",
    {
        **dict.fromkeys(("samples_per_second", "bytes_per_second", "storage_headroom_ratio"), 0.03),
        "accelerators_feedable": 0.03,
        **dict.fromkeys(("starvation_ratio", "feed_loader_gap_ratio", "feed_mlperf_utilization_ratio"), 0.015),
        "seconds": 0.10,
    },
)
METRICS = metrics(
    ("inference_samples_per_second",
     "Samples a second by stage: input resident, transferred, preprocessed, fetched alone, from storage",
     "stage", "higher"),
    ("starvation_ratio",
     "Share of its capability that the accelerator loses to waiting for data, in total and by component",
     "component", "lower"),
    ("storage_headroom_ratio",
     "What the path delivers over what one accelerator demands: fetch / resident", "", "higher"),
    ("accelerators_feedable",
     "How many such accelerators the path can feed without keeping them waiting", "", "higher"),
    ("feed_sample_bytes", "Mean size of one sample that the feed reads", "", "none"),
    ("feed_wait_seconds", "How long a step waited for its batch", "stage statistic", "lower"),
    ("feed_interference_ratio",
     "How much slower the accelerator computes while it is also loaded: not idleness", "", "lower"),
    ("feed_mlperf_utilization_ratio",
     "Accelerator utilization as MLPerf Storage defines it, first batch left out", "", "higher"),
    ("feed_preprocess_cores",
     "CPU cores that preparing samples would keep busy at the accelerator's full rate", "", "lower"),
    ("feed_available_cores", "CPU cores that the feed may use", "", "none"),
    ("feed_yardstick_samples_per_second",
     "With --loader: what our own reader feeds the accelerator with, on the same path", "", "higher"),
    ("feed_loader_gap_ratio",
     "With --loader: what that loader loses against our own reader, of the accelerator's capability",
     "loader workers", "lower"),
    ("feed_fetch_bytes_per_second",
     "Reading alone, by number of readers, block size, and past or through the page cache",
     "readers block_bytes cache", "higher"),
    ("feed_consumed_bytes_per_second", "Time line: bytes that the accelerator consumed", "stage", "higher"),
    ("feed_device_bytes_per_second", "Time line: bytes that the device delivered to the readers", "stage", "none"),
    ("feed_utilization_ratio", "Time line: consumption over the accelerator's own rate", "stage", "higher"),
    ("feed_pressure_ratio", "Time line: share of time in which a task stalled for I/O", "stage", "lower"),
    ("feed_model_load_bytes_per_second", "Model weights from cold files to the accelerator, read and copied whole",
     "reader to", "higher"),
    ("feed_kv_read_bytes_per_second", "Evicted key-value blocks read back, with the reads of four requests in flight",
     "model block_bytes state", "higher"),
    ("feed_kv_read_seconds", "How long one key-value block takes to come back",
     "model block_bytes state statistic", "lower"),
    ("feed_checkpoint_bytes_per_second", "A checkpoint, written with fsync and restored cold",
     "direction", "higher"),
    last="path stand_in accelerator", over_one="storage_headroom_ratio", between=_BETWEEN,
)  # fmt: skip


def decode_name(text: str) -> str:
    """The name of a decode, as `probes.feed.load.reader` knows them. Raises ValueError."""
    kind, colon, seconds = text.partition(":")
    if text not in ("none", "crc32", "normalize"):
        if kind not in ("spin", "sleep") or not colon:
            raise ValueError(f"{text!r} is not one of none, crc32, normalize, spin:SECONDS, sleep:SECONDS")
        if not 0.0 <= float(seconds) < math.inf:
            raise ValueError(f"{seconds!r} is no time in seconds")
    return text


OPTIONS = (
    Option("loader", "feed as people load, and find what their loader loses against our reader", choices=LOADERS,
           code=Code.UNKNOWN_LOADER),
    Option("pattern", "how the data is read", choices=("batch", "shards", *PATTERNS), default="batch",
           code=Code.UNKNOWN_PATTERN),
    Option("workload", "a published workload by name, or a TOML file of one: unet3d, resnet50, ..."),
    Option("decode", "what is done to a sample: none, crc32, normalize, spin:SECONDS, sleep:SECONDS; default crc32, "
           "none for an emulated accelerator", type=decode_name),
)  # fmt: skip

_DATA_BYTES = {Effort.QUICK: 512 << 20, Effort.STANDARD: 2 << 30, Effort.THOROUGH: 16 << 30}
_LAYOUT_SECONDS = {Effort.QUICK: 5.0, Effort.STANDARD: 15.0, Effort.THOROUGH: 120.0}
_TORCH_REMEDY = "pip install 'aiready-bench[torch]', or use --accelerator emulated:resnet50-h100"
_START_SECONDS = 20.0  # Python, torch and a GPU's first context
#: Shares of the demand that the bucket leaves out.
_TRUTHS = (0.0, 0.2, 0.5, 0.8)
#: What standard effort promises, in shares of one.
_TRUTH_ERROR = 0.01
_TRUTH_SCHEDULE = (
    Row("transfer", 1, 0.2, 0.4, 0.4),
    Row("preprocess", 1, 0.2, 0.6, 0.6),
    Row("fetch", 1, 0.5, 1.5, 2.5),
    Row("storage", 1, 0.7, 4.0, 6.0),
)


def measure(ctx: Context) -> Sequence[Measurement]:
    """Every directory in turn. One that cannot be measured is told as a warning, if another could."""
    from probes.feed.workloads import resolve

    accelerator = resolve(ctx.request.accelerator, ctx.option("workload"))
    check(ctx.request)

    def one(index: int, directory: str) -> Sequence[Measurement]:
        parsed = _measure_directory(ctx, directory, accelerator, index)
        ctx.series.extend(parsed.series)
        for text in parsed.warnings:
            ctx.warn(text)
        return parsed.measurements

    return ctx.each(ctx.request.storage, one, show=True)


def check(request: Request) -> None:
    """Raises Unsupported for an accelerator, a workload, a pattern or a loader that there is not."""
    from probes.feed.workloads import resolve

    for option in OPTIONS:
        PROBE.option(request, option.name)
    resolve(request.accelerator, PROBE.option(request, "workload"))


def _measure_directory(ctx: Context, directory: str, accelerator: Accelerator, index: int) -> Parsed:
    from probes.feed.parse import parse, parse_pattern

    path = str(Path(directory).absolute())
    need = _DATA_BYTES[ctx.effort] + (64 << 20)
    with ctx.workspace(Path(path), need) as folder, ctx.stage("feed"):
        ctx.progress(f"feeding from {path}", index / max(1, len(ctx.request.storage)))
        spec = specification(ctx, str(folder), accelerator)
        timeout = spec.deadline_seconds + _START_SECONDS + 30.0
        done = ctx.tools.python("probes.feed.load.main", spec.model_dump_json(), name=f"feed-{index}", timeout=timeout)
    if spec.pattern in PATTERNS:
        return parse_pattern(done.stdout, path, accelerator.label)
    return parse(done.stdout, path, accelerator.label)


def specification(ctx: Context, folder: str, accelerator: Accelerator) -> Spec:
    work = accelerator.workload
    real = accelerator.kind != "emulated"
    loader = ctx.option("loader")
    pattern = ctx.option("pattern")
    return Spec(
        folder=folder,
        accelerator=accelerator.kind,
        sample_bytes=work.sample_bytes,
        sample_sd_bytes=work.sample_sd_bytes,
        samples_per_file=work.samples_per_file,
        batch=work.batch * work.count,
        count=work.count,
        images=work.images,
        demand=work.demand_samples_per_second,
        data_bytes=_DATA_BYTES[ctx.effort],
        layout_seconds=_LAYOUT_SECONDS[ctx.effort],
        schedule=schedule(ctx.effort, real, work.readers, loader is not None),
        deadline_seconds=0.9 * ctx.seconds / max(1, len(ctx.request.storage)),
        decode=ctx.option("decode") or ("crc32" if real else "none"),
        seed=ctx.seed,
        readers=work.readers,
        loader=loader,
        pattern=pattern,
        sequential=pattern == "shards",
    )


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Is there an accelerator to feed, and storage below each directory?"""
    from probes.feed.workloads import resolve

    try:
        accelerator = resolve(request.accelerator)
    except ProbeError as error:
        return [Check("feed", False, error.reason, error.remedy)]
    checks = [_storage_check(tools, directory) for directory in request.storage]
    if accelerator.kind == "emulated":
        return checks
    if importlib.util.find_spec("torch"):
        return [Check("feed", True, "torch is there"), *checks]
    missing = "torch is not installed: only emulated accelerators can be fed"
    return [Check("feed", False, missing, _TORCH_REMEDY), *checks]


def _storage_check(tools: Tools, directory: str) -> Check:
    from bench.measure import jsonl
    from probes.feed.records import DirectoryCheck

    name = f"feed from {directory}"
    try:
        done = tools.python("probes.feed.load.main", "--check", directory, name="check", timeout=_START_SECONDS)
    except ProbeError as error:
        return Check(name, False, error.reason, "look at the mount and its server")
    found = jsonl.record(done.stdout, DirectoryCheck)
    if found is None or found.error:
        return Check(name, False, f"{directory} cannot be used", "give a directory that exists: --storage DIR")
    if found.memory:
        remedy = "give a directory on a disk: --storage DIR"
        return Check(name, False, f"on {found.memory}: no storage below it", remedy)
    return Check(name, True, "on storage")


def calibrate(tools: Tools) -> Sequence[Check]:
    """The whole instrument against an exact rate in software: a line for each known starvation, with the error.

    No disk and no privilege: the readers are served by a token bucket whose rate is known, so the starvation of an
    emulated ResNet-50 on an H100 is known too, and what the instrument says minus that is its error.
    """
    return [calibration_check(tools, truth) for truth in _TRUTHS]


def calibration_check(tools: Tools, truth: float) -> Check:
    from probes.feed.parse import parse

    name = f"feed at {truth:.0%} starvation"
    spec = _bucket(truth).model_dump_json()
    try:
        done = tools.python("probes.feed.load.main", spec, name=f"calibrate-{truth:.0%}", timeout=60.0)
        parsed = parse(done.stdout, "calibration", "")
    except ProbeError as error:
        return Check(name, False, error.reason, error.remedy)
    total = next(m for m in parsed.measurements if m.metric == "starvation_ratio" and m.labels["component"] == "total")
    error_points = 100.0 * (total.value - truth)
    ok = abs(total.value - truth) <= _TRUTH_ERROR and total.invalid is None
    doubt = f" ({total.invalid})" if total.invalid else ""
    detail = f"measured {total.value:.2%}, an error of {error_points:+.2f} points{doubt}"
    return Check(name, ok, detail, None if ok else "calm the node (see `bench doctor`), then calibrate again")


def _bucket(truth: float) -> Spec:
    """A bucket that lacks ``truth`` of the demand, or gives thrice the demand for 0."""
    from probes.feed.workloads import resolve

    work = resolve("emulated:resnet50-h100").workload
    demand = work.demand_samples_per_second or 1.0
    rate = demand * work.sample_bytes * (1.0 - truth if truth else 3.0)
    return Spec(
        folder="/", accelerator="emulated", sample_bytes=work.sample_bytes, samples_per_file=work.samples_per_file,
        batch=work.batch, demand=demand, data_bytes=256 << 20, layout_seconds=1.0, deadline_seconds=20.0,
        bucket=(rate, 0.0), schedule=_TRUTH_SCHEDULE,
    )  # fmt: skip


def pool(rounds: Sequence[Sequence[Measurement]]) -> Sequence[Measurement]:
    """Several rounds' rates as one round's, and what follows from them."""
    from probes.feed.waterfall import pool as pooled

    return pooled(rounds)


PROBE = Probe(
    name="feed",
    help="what the accelerator waits for: storage, the decode, the copy or the loader, and by how much",
    metrics=METRICS,
    seconds=budget.FEED,
    per_path=True,
    measure=measure,
    doctor=doctor,
    guards_itself=True,
    calibrate=calibrate,
    check=check,
    on_cards=True,
    order=70,
    options=OPTIONS,
    pool=pool,
    facts=("accelerator", "mounts", "gpus", "nvidia_driver", "versions.torch", "versions.python"),
)
