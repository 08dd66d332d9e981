"""``bench gate``: judge a stored run again, with any profile, without hardware."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import settings
from bench.cli.errors import CliError
from bench.cli.output import emit, emit_run, note

if TYPE_CHECKING:
    from bench.model import Run
    from bench.store.runs import Store

Words = list[str] | None
RunArgument = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run file, an id or its beginning; default: this node's newest.")
]
Results = Annotated[Path | None, typer.Option(envvar="BENCH_RESULTS", help="Where runs are stored.")]


def open_store(results: Path | None) -> Store:
    from bench.store.runs import Store

    return Store(settings.results_root(results), warn=note)


def find_run(store: Store, reference: str | None) -> Run:
    """The run that was named, else this node's newest. Raises CliError, one line."""
    from bench.store.errors import UnusableRun

    try:
        found = store.find(reference) if reference else store.newest(socket.gethostname())
    except UnusableRun as error:
        raise CliError(str(error)) from error
    if found is None:
        raise CliError(f"no run of this node is stored in {store.root}; measure with: bench run")
    return found


def gate(
    run: RunArgument = None,
    profile: Annotated[
        Words, typer.Option(envvar="BENCH_PROFILE", help="Profile by name or file; again for more.")
    ] = None,
    results: Results = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="One line a profile.")] = False,
    all_gates: Annotated[bool, typer.Option("--all-gates", help="A line for every gate, passes too.")] = False,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Status 0 whatever the verdict.")] = False,
) -> int:
    """Judge a stored run again. Nothing is measured and nothing is stored.

    Examples:  bench gate    bench gate 3f9a --profile ./mine.toml    bench gate --json | jq .verdicts
    """
    from bench.cli.conclude import concluded
    from bench.judge.gate import decide, exit_status

    profiles = settings.load_profiles(profile or settings.config().get("profile", []), settings.declared_metrics())
    judged = concluded(find_run(open_store(results), run), profiles, settings.metric_owners())
    if json:
        emit(as_json(judged))
    else:
        emit_run(judged, profiles, quiet=quiet, all_gates=all_gates)
    return 0 if exit_zero else exit_status(decide(judged.verdicts))


def as_json(run: Run) -> str:
    """The contract's answer: the run's id, the verdicts, the regressions."""
    from json import dumps

    verdicts = [verdict.model_dump(mode="json") for verdict in run.verdicts]
    return dumps({"run": run.id, "verdicts": verdicts, "regressions": []}, indent=2, allow_nan=False)
