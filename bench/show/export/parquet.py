"""Apache Parquet: one row a measurement, for pandas, DuckDB, Spark and notebooks.

Columns: run, hostname, fingerprint, started_at (UTC), effort, accelerator, probe, metric, value, low, high (the 95 %
interval, base units), samples, stand_in, invalid, and ``labels`` as one JSON object with sorted keys.
Needs pyarrow: ``pip install 'aiready-bench[parquet]'``.
"""

from __future__ import annotations

import io
import json
from typing import Any

from bench.model import Measurement, Run
from bench.show.export import Export, ExportError
from bench.show.wording import moment


def render(export: Export) -> bytes:
    """Raises ExportError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExportError(f"parquet needs pyarrow ({error}); pip install 'aiready-bench[parquet]'") from error
    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        [
            *((name, text) for name in ("run", "hostname", "fingerprint")),
            ("started_at", pa.timestamp("us", tz="UTC")),
            *((name, text) for name in ("effort", "accelerator", "probe", "metric")),
            *((name, number) for name in ("value", "low", "high")),
            ("samples", pa.int64()),
            *((name, text) for name in ("stand_in", "invalid", "labels")),
        ]
    )
    rows = [_row(export.run, result.probe, m) for result in export.run.results for m in result.measurements]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    return sink.getvalue()


def _row(run: Run, probe: str, m: Measurement) -> dict[str, Any]:
    return {
        "run": run.id,
        "hostname": run.node.hostname,
        "fingerprint": run.node.fingerprint,
        "started_at": moment(run.started_at),
        "effort": run.request.effort.value,
        "accelerator": run.request.accelerator,
        "probe": probe,
        "metric": m.metric,
        "value": m.value,
        "low": m.interval[0],
        "high": m.interval[1],
        "samples": m.samples,
        "stand_in": m.stand_in,
        "invalid": m.invalid,
        "labels": json.dumps(m.labels, sort_keys=True),
    }
