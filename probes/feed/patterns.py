"""Patterns of access that are no feed: what a model load, a key-value block, a checkpoint takes. Pure parsing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from bench.judge.statistics import median_interval, quantile, quantile_interval
from bench.measure import jsonl as lines
from bench.model import Code, Measurement
from probes.feed.parse import WHO, Parsed, records_of
from probes.feed.validity import COLD_RATIO

Record = Mapping[str, Any]
PATTERNS = ("model-load", "kv-cache", "checkpoint")
_Better = Literal["higher", "lower", "none"]
PATTERN_METRICS: tuple[tuple[str, str, tuple[str, ...], _Better], ...] = (
    ("feed_model_load_bytes_per_second", "Model weights from cold files to the accelerator, read and copied whole",
     ("reader", "to"), "higher"),
    ("feed_kv_read_bytes_per_second", "Evicted key-value blocks read back, with the reads of four requests in flight",
     ("model", "block_bytes", "state"), "higher"),
    ("feed_kv_read_seconds", "How long one key-value block takes to come back",
     ("model", "block_bytes", "state", "statistic"), "lower"),
    ("feed_checkpoint_bytes_per_second", "A checkpoint, written with fsync and restored cold",
     ("direction",), "higher"),
)  # fmt: skip


def parse_pattern(text: str, path: str, label: str) -> Parsed:
    """The measurements of one pattern. Raises Unsupported, Failed or TimedOut like `parse`."""
    records = records_of(text)
    labels = {"path": path}
    ready = next(record for record in records if record["kind"] == "ready")
    if ready.get("accelerator") == "emulated":
        labels |= {"stand_in": "emulated", "accelerator": label}
    with lines.understood(WHO):
        found = [*_loads(records, labels), *_kv(records, labels), *_checkpoints(records, labels)]
    return Parsed(tuple(found), (), ())


def _cold(records: Sequence[Record]) -> str | None:
    for record in records:
        if "device_bytes" in record and record["device_bytes"] < COLD_RATIO * record["bytes"]:
            ratio = record["device_bytes"] / record["bytes"]
            return f"{Code.NOT_COLD}: only {ratio:.0%} of the bytes came from the device"
    return None


def _rate(metric: str, records: Sequence[Record], labels: dict[str, str]) -> Measurement:
    rates = [record["bytes"] / record["seconds"] for record in records]
    value, interval = median_interval(rates)
    return Measurement(
        metric=metric, value=value, interval=interval, samples=len(rates), labels=labels, repeats=tuple(rates),
        invalid=_cold(records),
    )  # fmt: skip


def _loads(records: Sequence[Record], labels: dict[str, str]) -> Iterator[Measurement]:
    for reader in ("yardstick", "safetensors"):
        found = [r for r in records if r.get("kind") == "load" and r["reader"] == reader]
        if found:
            more = {**labels, "reader": reader, "to": found[0]["to"]}
            yield _rate("feed_model_load_bytes_per_second", found, more)


def _kv(records: Sequence[Record], labels: dict[str, str]) -> Iterator[Measurement]:
    found = [record for record in records if record.get("kind") == "kv"]
    for model, state in dict.fromkeys((record["model"], record["state"]) for record in found):
        some = [record for record in found if (record["model"], record["state"]) == (model, state)]
        more = {**labels, "model": model, "state": state, "block_bytes": str(some[0]["block_bytes"])}
        yield _rate("feed_kv_read_bytes_per_second", some, more)
        latencies = [float(value) for record in some for value in record["latencies"]]
        for statistic, q in (("p50", 0.50), ("p99", 0.99)):
            yield Measurement(
                metric="feed_kv_read_seconds", value=quantile(latencies, q), interval=quantile_interval(latencies, q),
                samples=len(latencies), labels={**more, "statistic": statistic}, invalid=_cold(some),
            )  # fmt: skip


def _checkpoints(records: Sequence[Record], labels: dict[str, str]) -> Iterator[Measurement]:
    for direction in ("write", "restore"):
        found = [r for r in records if r.get("kind") == "checkpoint" and r["direction"] == direction]
        if found:
            yield _rate("feed_checkpoint_bytes_per_second", found, {**labels, "direction": direction})
