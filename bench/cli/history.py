"""``bench history METRIC``: one metric over every stored run."""

from __future__ import annotations

import difflib
import sys
from collections import defaultdict
from datetime import UTC, datetime
from json import loads
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from bench.cli.options import Json, NodeOption, Results, Words
from bench.cli.output import emit_json, emit_lines
from bench.errors import UserError
from bench.store.errors import one_line

if TYPE_CHECKING:
    from bench.store.index import Index

_BARS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=+*#@"


def history(
    metric: Annotated[str, Argument(help="A metric's name; `bench probes` lists them.")],
    label: Annotated[Words, Option(help="Only series with NAME=VALUE; again for more.")] = None,
    node: NodeOption = None,
    last: Annotated[int, Option(min=1, help="The newest so many runs of each series.")] = 60,
    results: Results = None,
    json: Json = False,
) -> None:
    """How a metric went over the stored runs: a line a series, or every value with --json.

    Examples:  bench history storage_read_bytes_per_second --label pattern=sequential
    """
    from bench.store.history import values_of
    from bench.workflows.catalog import declared
    from bench.workflows.site import open_index

    with open_index(results) as index:
        rows = values_of(index, metric, node)
        if not rows:
            raise UserError(one_line(_nothing(index, metric, node)))
    if wrong := [word for word in label or [] if "=" not in word]:
        raise UserError(f"--label {wrong[0]}: must be NAME=VALUE")
    wanted = {tuple(word.split("=", 1)) for word in label or []}
    known = declared().metrics.get(metric)
    series: dict[tuple[str, tuple[tuple[str, str], ...]], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if wanted <= set((labels := loads(row["labels"])).items()):
            series[row["host"], tuple((known.identity(labels) if known else labels).items())].append(row)
    groups = [_series(host, dict(labels), points[-last:]) for (host, labels), points in sorted(series.items())]
    if not groups:
        raise UserError(f"no stored {metric} has the label {', '.join(label or [])}")
    if json:
        emit_json({"metric": metric, "series": groups}, indent=1)
    else:
        emit_lines(_lines(metric, groups), longest=1000)


def _nothing(index: Index, metric: str, node: str | None) -> str:
    from bench.store.history import metrics_in

    known = metrics_in(index)
    if not known:
        return f"no run is stored in {index.root}; measure with: bench run"
    if metric in known:
        return f"--node {node}: no run of it is stored that has {metric}; there are {', '.join(index.hosts())}"
    near = difflib.get_close_matches(metric, known, n=3) or known[:5]
    return f"no stored run has the metric {metric}; nearest: {', '.join(near)}"


def _series(host: str, labels: dict[str, str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    values = [row["value"] for row in rows]
    summary = {"median": median(values), "min": min(values), "max": max(values)}
    points = [
        {
            "run": row["run"],
            "started_at": datetime.fromtimestamp(row["at"], UTC).isoformat().replace("+00:00", "Z"),
            "value": row["value"],
            "interval": [row["low"], row["high"]],
            "invalid": row["invalid"],
            "epoch": row["epoch"],
        }
        for row in rows
    ]
    return {"node": host, "labels": labels, "runs": len(rows), **summary, "points": points}


def _lines(metric: str, groups: list[dict[str, Any]]) -> list[str]:
    from bench.units import human

    lines = [metric]
    for found in groups:
        values = [point["value"] for point in found["points"]]
        labels = ",".join(f"{name}={value}" for name, value in found["labels"].items())
        lines.append(f"  {found['node']}  {labels}")
        amounts = f"last {human(values[-1], metric)}, median {human(found['median'], metric)}"
        extremes = f"{human(found['min'], metric)} to {human(found['max'], metric)}"
        lines.append(f"    {sparkline(values)}  {amounts}, {extremes}, {len(values)} runs")
    return lines


def sparkline(values: list[float]) -> str:
    """One character a value, from the smallest to the largest; plain ASCII where the terminal takes no other."""
    bars = _BARS if (sys.stdout.encoding or "").lower().startswith("utf") else _ASCII
    low, high = min(values), max(values)
    if high <= low:
        return bars[3] * len(values)
    return "".join(bars[min(7, int((value - low) / (high - low) * 8))] for value in values)
