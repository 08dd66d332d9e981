"""``bench run``: what it takes, what it shows, and its exit status. What it does is in `bench.workflows.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bench.cli.options import (
    Accelerator,
    AllGates,
    Directories,
    ExitZero,
    Peers,
    Profiles,
    Results,
    Words,
    duration,
    ratio,
)
from bench.cli.output import emit, emit_json, emit_run


class RunCommand(TyperCommand):
    """Lists at the end of its help what every probe lets ``--option`` set; only then are the probes loaded."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from bench.workflows.catalog import declared

        with formatter.section("Options of the probes (--option PROBE.NAME=VALUE)"):
            formatter.write_dl([(name, option.summary) for name, option in declared().options()])


def _schema(wanted: bool) -> None:
    if wanted:
        from bench.store.documents import schema_text

        emit(schema_text())
        raise typer.Exit


def run(
    profile: Profiles = None,
    probe: Annotated[Words, typer.Option(help="Only this probe; again for more.")] = None,
    storage: Directories = None,
    peer: Peers = None,
    accelerator: Accelerator = None,
    effort: Annotated[str | None, typer.Option(envvar="BENCH_EFFORT", help="quick, standard or thorough.")] = None,
    results: Results = None,
    json: Annotated[bool, typer.Option("--json", help="The run document on standard output, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; one line a profile.")] = False,
    all_gates: AllGates = False,
    exit_zero: ExitZero = False,
    replay: Annotated[
        Path | None, typer.Option(help="Judge recorded tool output anew: the .raw folder of a stored run.")
    ] = None,
    loader: Annotated[
        str | None, typer.Option(help="Feed as people load: torch, webdataset, safetensors, parquet.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Feed pattern: batch, shards, model-load, kv-cache, checkpoint.")
    ] = None,
    workload: Annotated[str | None, typer.Option(help="Published workload by name: unet3d, resnet50, ...")] = None,
    key_file: Annotated[str | None, typer.Option(help="Shared key of the peer's echo, in a file.")] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Compare with this node's nights; measure what is worse once more.")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="Repeat within the effort's time until medians are known to 3%, say.")
    ] = None,
    wait_quiet: Annotated[
        str | None, typer.Option(help="Wait as long as 10m, say, for a node that others keep busy.")
    ] = None,
    quiet_check: Annotated[
        bool,
        typer.Option(
            "--quiet-check/--no-quiet-check",
            envvar="BENCH_QUIET_CHECK",
            help="Look first whether others are busy here.",
        ),
    ] = True,
    option: Annotated[
        Words, typer.Option(metavar="PROBE.NAME=VALUE", help="An option of one probe, listed below; again for more.")
    ] = None,
    confirms: Annotated[str | None, typer.Option(hidden=True)] = None,
    print_schema: Annotated[
        bool, typer.Option("--print-schema", callback=_schema, is_eager=True, help="Print the JSON Schema of a run.")
    ] = False,
) -> int:
    """Measure this node, store the run, judge it, print one screen.

    Examples:  bench run --storage /data --peer 10.0.0.2    bench run --effort quick --json > run.json
    """
    from bench.cli.gate import regression_lines
    from bench.judge.gate import decide, exit_status
    from bench.store.runs import document
    from bench.workflows.nightly import convergence
    from bench.workflows.request import RunOptions
    from bench.workflows.run import measure_and_judge

    asked = RunOptions(
        profile=profile or [], probe=probe or [], storage=storage or [], peer=peer or [], accelerator=accelerator,
        effort=effort, results=results, replay=replay, option=option or [], baseline=baseline,
        flags={"loader": loader, "pattern": pattern, "workload": workload, "key_file": key_file},
        precision=None if precision is None else ratio(precision, "--precision"),
        patience=None if wait_quiet is None else duration(wait_quiet, "--wait-quiet"),
        quiet_check=quiet_check, confirms=confirms,
    )  # fmt: skip
    finished = measure_and_judge(asked, progress=not quiet)
    judged = finished.compared.run
    if json:
        emit_json(document(judged))
    else:
        emit_run(judged, finished.catalog.profiles, quiet=quiet, all_gates=all_gates)
        more = convergence(judged, finished.catalog, asked.precision) if asked.precision is not None else []
        more += regression_lines(finished.compared) if baseline else []
        if more:
            emit("\n".join(more))
    if finished.caught:
        return 128 + finished.caught
    return 0 if exit_zero else exit_status(decide(judged.verdicts))
