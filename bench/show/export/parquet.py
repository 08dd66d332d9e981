"""Apache Parquet: one row a measurement, for pandas, DuckDB, Spark and notebooks.

Columns: run, hostname, fingerprint, started_at (UTC), effort, accelerator, probe, metric, value, low, high (the 95 %
interval, base units), samples, stand_in, invalid, and ``labels`` as one JSON object with sorted keys.
Needs pyarrow: ``pip install 'aiready-bench[parquet]'``.
"""

from __future__ import annotations

import io
import json

from bench.show.export import Export, ExportError
from bench.show.wording import moment


def render(export: Export) -> bytes:
    """Raises ExportError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExportError(f"parquet needs pyarrow ({error}); pip install 'aiready-bench[parquet]'") from error
    run, found = export.run, list(export.run.measurements())
    text, number, times = pa.string(), pa.float64(), len(found)
    columns = {
        "run": pa.array([run.id] * times, text),
        "hostname": pa.array([run.node.hostname] * times, text),
        "fingerprint": pa.array([run.node.fingerprint] * times, text),
        "started_at": pa.array([moment(run.started_at)] * times, pa.timestamp("us", tz="UTC")),
        "effort": pa.array([run.request.effort.value] * times, text),
        "accelerator": pa.array([run.request.accelerator] * times, text),
        "probe": pa.array([result.probe for result in run.results for _ in result.measurements], text),
        "metric": pa.array([m.metric for m in found], text),
        "value": pa.array([m.value for m in found], number),
        "low": pa.array([m.interval[0] for m in found], number),
        "high": pa.array([m.interval[1] for m in found], number),
        "samples": pa.array([m.samples for m in found], pa.int64()),
        "stand_in": pa.array([m.stand_in for m in found], text),
        "invalid": pa.array([m.invalid for m in found], text),
        "labels": pa.array([json.dumps(m.labels, sort_keys=True) for m in found], text),
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()
