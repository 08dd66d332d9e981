"""``bench report``, ``bench explain`` and ``bench compare``: stored runs to read, to trace and to lay side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from bench.cli.options import File, Json, Results, Word, Words
from bench.cli.output import emit, emit_json, emit_lines

if TYPE_CHECKING:
    from bench.judge.baseline.comparison import Difference


def report(
    runs: Annotated[
        Words, Argument(metavar="[RUN]...", help="Run files, ids or their beginnings; default: this node's newest.")
    ] = None,
    output: Annotated[Path, Option("--output", "-o", help="The page.")] = Path("report.html"),
    results: Results = None,
) -> None:
    """One self-contained HTML page: verdicts and why, pictures, history, health, what is missing, every figure.

    It loads nothing and runs no script. Several runs stand side by side. Status 0 when it was written.

    Examples:  bench report -o report.html    bench report 3f9a 7c21 -o before-after.html
    """
    from bench.workflows.report import write_page
    from bench.workflows.site import open_store

    write_page(runs or [None], output, open_store(results))


def explain(
    run: Annotated[
        Words, Argument(metavar="[RUN] [GATE]", help="Default: this node's newest run, and the gate that decided.")
    ] = None,
    every: Annotated[bool, Option("--all", help="Every gate, then every probe.")] = False,
    metric: Annotated[Word, Option(help="The worst gate of this metric.")] = None,
    results: Results = None,
) -> None:
    """The path of a gate: verdict, limit, figure, the lines of raw output that it was read from, the command line.

    GATE is a metric, a gate's name or a part of it, a profile, which means the gate that decided it, or a probe.

    Examples:  bench explain    bench explain starvation    bench explain 3f9a realtime-inference
               bench explain 3f9a --all
    """
    from bench.workflows.lineage import explained
    from bench.workflows.site import open_store

    emit(explained(open_store(results), run or [], every=every, metric=metric))


def compare(
    a: Annotated[str, Argument(metavar="A", help="A run file, an id or its beginning: the one before.")],
    b: Annotated[str, Argument(metavar="B", help="The one after.")],
    all_series: Annotated[bool, Option("--all", help="Also what differs by no more than noise.")] = False,
    output: Annotated[File, Option("--output", "-o", help="Write it as a page (HTML) there.")] = None,
    results: Results = None,
    json: Json = False,
) -> None:
    """Two stored runs side by side. Noise is that of the node's own nights where seven are stored.

    Examples:  bench compare 3f9a 77d0    bench compare 3f9a 77d0 -o before-after.html
    """
    from bench.workflows.catalog import declared
    from bench.workflows.report import compared, write_page
    from bench.workflows.site import find_run, open_store

    store = open_store(results)
    if output is not None:
        write_page([a, b], output, store)
    found = compared(find_run(store, a), find_run(store, b), store, declared())
    if json:
        emit_json({**found, "differences": [d.model_dump(mode="json") for d in found["differences"]]})
    else:
        emit_lines(_lines(found, all_series))


def _lines(found: dict[str, Any], all_series: bool) -> list[str]:
    shown = [d for d in found["differences"] if all_series or d.verdict != "same"]
    same = len(found["differences"]) - len(shown)
    lines = [f"{found['a']} -> {found['b']}", *map(_line, shown)]
    lines += [f"  {same} series differ by no more than noise"] if same else []
    lines += [f"  only in {found[run]}: {text}" for run in ("a", "b") for text in found[f"only_{run}"]]
    return lines + [f"  {fact}" for fact in found["facts"]]


def _line(difference: Difference) -> str:
    from bench.units import human, series_name

    amount = "" if difference.change_ratio is None else f" ({100 * difference.change_ratio:+.1f} %)"
    noise = "" if difference.noise_ratio is None else f", noise up to {100 * difference.noise_ratio:.1f} %"
    name = series_name(difference.metric, difference.labels)
    values = f"{human(difference.a, difference.metric)} -> {human(difference.b, difference.metric)}"
    return f"  {difference.verdict:<9} {name}  {values}{amount}{noise}; {difference.basis}"
