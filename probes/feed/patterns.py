"""Patterns of access that are no feed: what a model load, a key-value block, a checkpoint takes. Pure parsing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.judge.statistics import quantile, quantile_interval
from bench.measure.jsonl import understood
from bench.model import Code, Measurement
from probes.common.metrics import Row, of_repeats
from probes.feed.parse import WHO, Parsed, answer
from probes.feed.records import Checkpoint, KvRead, ModelLoad, Moved, PatternReady
from probes.feed.validity import COLD_RATIO

PATTERNS = ("model-load", "kv-cache", "checkpoint")
PATTERN_METRICS: tuple[Row, ...] = (
    ("feed_model_load_bytes_per_second", "Model weights from cold files to the accelerator, read and copied whole",
     "reader to", "higher"),
    ("feed_kv_read_bytes_per_second", "Evicted key-value blocks read back, with the reads of four requests in flight",
     "model block_bytes state", "higher"),
    ("feed_kv_read_seconds", "How long one key-value block takes to come back",
     "model block_bytes state statistic", "lower"),
    ("feed_checkpoint_bytes_per_second", "A checkpoint, written with fsync and restored cold",
     "direction", "higher"),
)  # fmt: skip


def parse_pattern(text: str, path: str, label: str) -> Parsed:
    """The measurements of one pattern. Raises Unsupported, Failed or TimedOut like `parse`."""
    ready, moved = answer(text, PatternReady, Moved, load=ModelLoad, kv=KvRead, checkpoint=Checkpoint)
    labels = {"path": path}
    if ready.accelerator == "emulated":
        labels |= {"stand_in": "emulated", "accelerator": label}
    with understood(WHO):
        return Parsed(tuple(_measurements(moved, labels)), (), ())


def _measurements(moved: Sequence[Moved], path: dict[str, str]) -> Iterator[Measurement]:
    loads = [record for record in moved if isinstance(record, ModelLoad)]
    for reader in ("yardstick", "safetensors"):
        if some := [load for load in loads if load.reader == reader]:
            yield _rate("feed_model_load_bytes_per_second", some, {**path, "reader": reader, "to": some[0].to})
    reads = [record for record in moved if isinstance(record, KvRead)]
    for model, state in dict.fromkeys((read.model, read.state) for read in reads):
        yield from _kv([read for read in reads if (read.model, read.state) == (model, state)], path)
    checkpoints = [record for record in moved if isinstance(record, Checkpoint)]
    for direction in ("write", "restore"):
        if done := [record for record in checkpoints if record.direction == direction]:
            yield _rate("feed_checkpoint_bytes_per_second", done, {**path, "direction": direction})


def _kv(reads: Sequence[KvRead], path: dict[str, str]) -> Iterator[Measurement]:
    first = reads[0]
    labels = {**path, "model": first.model, "state": first.state, "block_bytes": str(first.block_bytes)}
    yield _rate("feed_kv_read_bytes_per_second", reads, labels)
    latencies = [seconds for read in reads for seconds in read.latencies]
    for statistic, q in (("p50", 0.50), ("p99", 0.99)):
        yield Measurement(
            metric="feed_kv_read_seconds", value=quantile(latencies, q), interval=quantile_interval(latencies, q),
            samples=len(latencies), labels={**labels, "statistic": statistic}, invalid=_cold(reads),
        )  # fmt: skip


def _cold(moved: Sequence[Moved]) -> str | None:
    for record in moved:
        if record.device_bytes is not None and record.device_bytes < COLD_RATIO * record.bytes:
            return f"{Code.NOT_COLD}: only {record.device_bytes / record.bytes:.0%} of the bytes came from the device"
    return None


def _rate(metric: str, moved: Sequence[Moved], labels: dict[str, str]) -> Measurement:
    return of_repeats(metric, [record.bytes / record.seconds for record in moved], labels, _cold(moved))
