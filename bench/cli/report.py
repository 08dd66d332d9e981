"""``bench report``: stored runs as one page to read, to mail and to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.gate import Results, find_run, open_store
from bench.cli.output import note
from bench.workflows import site as settings
from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.model import Run
    from bench.show.html.page import Shown
    from bench.store.runs import Store


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Run files, ids or their beginnings; default: this node's newest."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    results: Results = None,
) -> int:
    """One self-contained HTML page: verdicts and why, pictures, history, health, what is missing, every figure.

    It loads nothing and runs no script. Several runs stand side by side. Status 0 when it was written.

    Examples:  bench report -o report.html    bench report 3f9a 7c21 -o before-after.html
    """
    store = open_store(results)
    references: list[str | None] = [*runs] if runs else [None]
    found = [shown(store, reference) for reference in references]
    write_page(found, output, store)
    return 0


def write_page(found: Sequence[Shown], output: Path, store: Store) -> None:
    """Put the page of these runs in place. Raises CliError when it cannot be written."""
    from bench import __version__
    from bench.cli.compare import compared
    from bench.show.html.page import render
    from bench.store.atomic import write_atomically

    apart = compared(found[0].run, found[1].run, store)["differences"] if len(found) == 2 else None
    page = render(found, __version__, apart)
    try:
        write_atomically(output, page.encode("utf-8", "replace"))
    except OSError as error:
        raise CliError(f"{output}: cannot be written: {error.strerror or error}") from error
    note(f"{output}: {len(page.encode()) // 1000} kB")


def shown(store: Store, reference: str | None) -> Shown:
    """A stored run with what the page tells beside it. Raises CliError when it is not there."""
    from bench.show.html.page import Shown
    from bench.show.terminal.lineage import explain
    from bench.workflows.page_history import histories

    found = find_run(store, reference)
    folder = store.locate(reference).parent if reference else store.path_for(found).parent
    judged = _judged(found)
    return Shown(judged, explain(judged, folder), tuple(histories(store, judged)), _descriptions())


def _judged(run: Run) -> Run:
    """A run that nobody judged is judged by the shipped profiles, as `bench gate` does."""
    if run.verdicts:
        return run
    from bench.workflows.judging import concluded

    profiles = settings.load_profiles(settings.config().get("profile", []), settings.declared_metrics())
    return concluded(run, profiles, settings.metric_owners())


def _descriptions() -> dict[str, str]:
    return {p.name: p.description for p in settings.load_profiles([], settings.declared_metrics())}
