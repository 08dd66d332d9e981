"""``bench fleet export``: a fleet in the words of another program; a node's own figures are in ``bench export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import fleet_options as options
from bench.cli.output import emit, note
from bench.model import Code
from bench.show.export import FLEET_FORMATS
from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.judge.fleet.model import Fleet

Words = list[str] | None


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the nodes' run documents.")],
    format: Annotated[  # noqa: A002 - the option is called so
        str | None,
        typer.Option("--format", "-f", autocompletion=lambda: [*FLEET_FORMATS], help=", ".join(FLEET_FORMATS) + "."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to put in place, atomically; default: standard output.")
    ] = None,
    expect: options.Expect = None,
    newest: options.Newest = False,
    against: options.Against = None,
    again: options.Again = None,
    profile: options.Profiles = None,
    max_age: Annotated[
        str | None, typer.Option(help="nagios: if the oldest run is older than this (26h, 90m): unknown.")
    ] = None,
) -> int:
    """The fleet of DIR, joined as `bench fleet join` does, for Prometheus, CI, Nagios or a pull request.

    Every named host is there with its one state; a missing one is an error, never skipped. Status 0 when it was
    written; nagios is a plugin: 0, 2, 3, 3 for GO, NO-GO, no verdict, INCONCLUSIVE.

    Examples:  bench fleet export results/fleet/3f9a -f junit -o fleet.xml
               bench fleet export /shared/acceptance --expect hosts.txt -f markdown >> "$GITHUB_STEP_SUMMARY"
    """
    from bench.cli.export import write
    from bench.show.export import Export, render

    if format not in FLEET_FORMATS:
        listed = ", ".join(FLEET_FORMATS)
        asked = f"--format {format}: must be" if format else "--format is needed:"
        raise CliError(f"{asked} one of {listed}")
    try:
        found = _joined(folder, expect, profile, newest=newest, against=against, again=again)
        whole = Export(found, stale=_stale(found, max_age))
    except CliError as error:
        return _no_answer(format, error)
    write(format, render(format, whole), output)
    return _status(format, found, whole.stale)


def _joined(
    folder: Path, expect: str | None, profile: Words, *, newest: bool, against: Path | None, again: Path | None
) -> Fleet:
    from bench.cli.fleet import expected, judgement
    from bench.fleet.errors import FleetError
    from bench.fleet.files import join_folder

    try:
        by = judgement(profile)
        return join_folder(folder, expected(expect), by, newest=newest, against=against, again=again)
    except FleetError as error:
        raise CliError(str(error)) from error


def _stale(found: Fleet, max_age: str | None) -> str | None:
    """By the oldest run that counts. Raises CliError for what is no age."""
    if max_age is None:
        return None
    import time

    from bench.cli.regression import duration, too_old_since

    seconds = duration(max_age, "--max-age")
    if found.measured_at is None:
        return f"{Code.STALE}: no node has a run"
    return too_old_since(found.measured_at, "the oldest run", seconds, time.time())


def _no_answer(name: str, error: CliError) -> int:
    """A plugin must say "unknown" by its own protocol; elsewhere the error is the answer."""
    from bench.show.export import PLUGIN_STATUS, nagios

    if name != "nagios":
        raise error
    note(f"bench: {error}")
    emit(nagios.unknown(str(error), "FLEET"))
    return PLUGIN_STATUS[name][2]


def _status(name: str, found: Fleet, stale: str | None) -> int:
    from bench.judge.gate import exit_status
    from bench.show.export import PLUGIN_STATUS

    if name not in PLUGIN_STATUS:
        return 0
    return PLUGIN_STATUS[name][3 if stale else exit_status(found.decision)]
