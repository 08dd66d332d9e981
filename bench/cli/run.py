"""``bench run``: what it takes, what it shows, and its exit status. What it does is in `bench.workflows.run`."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import Annotated, Any

from typer import Exit, Option
from typer.core import TyperCommand

from bench.cli import options
from bench.cli.options import File, Word, Words
from bench.cli.output import emit, emit_json, emit_lines, emit_run, write
from bench.errors import UserError
from bench.show.export import BINARY, FORMATS, Export, render


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
        raise Exit


def _format(output: str | None, json: bool) -> str:
    """What goes to standard output. Raises UserError before a minute is spent on what could not be shown."""
    wanted = output or ("json" if json else "screen")
    if wanted not in ("screen", *FORMATS):
        near = get_close_matches(wanted, FORMATS, 1)
        known = f"did you mean {near[0]}?" if near else f"must be one of screen, {', '.join(FORMATS)}"
        raise UserError(f"--output {wanted}: {known}")
    if json and wanted != "json":
        raise UserError(f"--json and --output {wanted}: give one of the two")
    if wanted in BINARY and sys.stdout.isatty():
        raise UserError(f"--output {wanted} is not for a terminal: send it to a file")
    return wanted


def run(
    profile: options.Profiles = None,
    probe: Annotated[Words, Option(help="Only this probe; again for more.")] = None,
    storage: options.Directories = None,
    peer: options.Peers = None,
    accelerator: options.Accelerator = None,
    effort: Annotated[Word, Option(envvar="BENCH_EFFORT", help="quick, standard or thorough.")] = None,
    results: options.Results = None,
    output: Annotated[
        Word,
        Option(
            metavar="FORMAT",
            autocompletion=lambda: ["screen", *FORMATS],
            help="On standard output, alone: screen (the default), or one of `bench export`: json, junit, ...",
        ),
    ] = None,
    json: Annotated[bool, Option("--json", help="The same as --output json: the run document.")] = False,
    quiet: Annotated[bool, Option("--quiet", help="No progress; one line a profile.")] = False,
    all_gates: options.AllGates = False,
    exit_zero: options.ExitZero = False,
    replay: Annotated[File, Option(help="Judge recorded tool output anew: the .raw folder of a stored run.")] = None,
    expect: Annotated[File, Option(help="What this node should be; else NO-GO, before anything is measured.")] = None,
    checks: Annotated[Word, Option(metavar="FILE", help="Declared checks (bench checks init): judged too.")] = None,
    sign: Annotated[
        File, Option(metavar="KEY", help="Sign the stored run with this SSH key, as bench sign does.")
    ] = None,
    nonce: Annotated[Word, Option(help="With --sign: a verifier's own word, signed with it.")] = None,
    data: Annotated[Words, Option(metavar="DIR", help="A data set or its description; again for more.")] = None,
    service: Annotated[
        Words, Option(metavar="NAME_OR_URL", help="A service of bench.toml, or a URL to GET; again for more.")
    ] = None,
    loader: Annotated[Word, Option(help="Feed as people load: torch, webdataset, safetensors, parquet.")] = None,
    pattern: Annotated[Word, Option(help="Feed pattern: batch, shards, model-load, kv-cache, checkpoint.")] = None,
    workload: Annotated[Word, Option(help="Published workload by name: unet3d, resnet50, ...")] = None,
    key_file: Annotated[Word, Option(help="Shared key of the peer's echo, in a file.")] = None,
    endpoint: Annotated[
        Word, Option(metavar="URL", help="An OpenAI-compatible server: load it in place of the cards.")
    ] = None,
    endpoint_model: Annotated[Word, Option(metavar="NAME", help="Which model; default: the first it lists.")] = None,
    endpoint_key_file: Annotated[
        Word, Option(metavar="FILE", help="Its key, in a file; default: BENCH_ENDPOINT_KEY.")
    ] = None,
    endpoint_max_rate: Annotated[
        Word, Option(metavar="R", help="Requests a second that it gets at most; default 5.")
    ] = None,
    endpoint_shared_prefix: Annotated[
        Word, Option(metavar="TOKENS", help="Begin every prompt with the same tokens; default none.")
    ] = None,
    rate: Annotated[
        Word, Option(metavar="R", help="Requests a second; default: what keeps the limits, and a share of it held.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be sent to others; send nothing.")] = False,
    baseline: Annotated[
        bool, Option("--baseline", help="Compare with this node's nights; measure what is worse once more.")
    ] = False,
    precision: Annotated[
        Word, Option(help="Repeat within the effort's time until medians are known to 3%, say.")
    ] = None,
    wait_quiet: Annotated[Word, Option(help="Wait as long as 10m, say, for a node that others keep busy.")] = None,
    quiet_check: Annotated[
        bool, Option(envvar="BENCH_QUIET_CHECK", help="Look first whether others are busy here.")
    ] = True,
    option: Annotated[
        Words, Option(metavar="PROBE.NAME=VALUE", help="An option of one probe, listed below; again for more.")
    ] = None,
    confirms: Annotated[Word, Option(hidden=True)] = None,
    print_schema: Annotated[
        bool, Option("--print-schema", callback=_schema, is_eager=True, help="Print the JSON Schema of a run.")
    ] = False,
) -> int:
    """Measure this node, store the run, judge it, print one screen.

    Exit status: 0 GO, 1 NO-GO, 2 no verdict (wrong usage, a fault), 3 INCONCLUSIVE, 130 and 143 interrupted; that of
    the verdict in every format.

    Examples:  bench run --storage /data --peer 10.0.0.2    bench run --effort quick --json > run.json
               bench run --output junit > bench.xml
    """
    from bench.cli.gate import regression_lines
    from bench.judge.gate import decide, exit_status
    from bench.store.runs import document
    from bench.workflows.nightly import convergence
    from bench.workflows.request import RunOptions
    from bench.workflows.run import dry_run as planned_requests
    from bench.workflows.run import measure_and_judge

    form = _format(output, json)
    if nonce is not None and sign is None:
        raise UserError("--nonce is signed with the run: give --sign KEY too")
    if sign is not None and replay is not None:
        raise UserError("--sign: a replay is no measurement; sign the run itself: bench sign RUN --key KEY")
    asked = RunOptions(
        profile=profile or [], probe=probe or [], storage=storage or [], peer=peer or [], accelerator=accelerator,
        effort=effort, results=results, replay=replay, option=option or [], baseline=baseline,
        flags={"loader": loader, "pattern": pattern, "workload": workload, "key_file": key_file, "checks": checks,
               "data": options.paths(data),
               "endpoint": endpoint, "endpoint_model": endpoint_model, "endpoint_key_file": endpoint_key_file,
               "endpoint_max_rate": endpoint_max_rate, "endpoint_shared_prefix": endpoint_shared_prefix,
               "rate": rate},
        precision=None if precision is None else options.ratio(precision, "--precision"),
        patience=None if wait_quiet is None else options.duration(wait_quiet, "--wait-quiet"),
        quiet_check=quiet_check, confirms=confirms, expect=expect, sign=sign, nonce=nonce,
        services=service or [],
    )  # fmt: skip
    if dry_run:
        emit_lines(planned_requests(asked) or ["nothing is sent to anybody: no --endpoint and no --service"])
        return 0
    compared, catalog, caught = measure_and_judge(asked, progress=not quiet)
    judged = compared.run
    if form == "json":
        emit_json(document(judged))
    elif form != "screen":
        write(render(form, Export(judged, catalog.metrics)), None, form)
    else:
        emit_run(judged, catalog.probes, quiet=quiet, all_gates=all_gates)
        more = convergence(judged, catalog, asked.precision) if asked.precision is not None else []
        more += regression_lines(compared) if baseline else []
        if more:
            emit_lines(more)
    if caught:
        return 128 + caught
    return 0 if exit_zero else exit_status(decide(judged.verdicts))
