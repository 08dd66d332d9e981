"""``bench explain``: from a verdict back to the line of tool output that it came from."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.gate import Results, RunArgument, find_run, open_store
from bench.cli.output import emit


def explain(
    run: RunArgument = None,
    metric: Annotated[str | None, typer.Option(help="Only the gates of this metric.")] = None,
    results: Results = None,
) -> int:
    """The lineage of a verdict: gate, measurement, raw tool output, command line, versions.

    Example:  bench explain --metric storage_read_bytes_per_second
    """
    from bench.show.terminal.lineage import explain as lineage

    store = open_store(results)
    found = find_run(store, run)
    folder = store.locate(run).parent if run else store.path_for(found).parent
    emit(lineage(found, folder, metric=metric))
    return 0
