"""``bench fleet``: many nodes, one verdict. ``run`` measures them, over ssh, Slurm or Ray; ``join`` judges what it, or
anything else, has produced.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option, Typer

from bench.cli import options
from bench.cli.export import known_format, no_answer, plugin_status
from bench.cli.options import File, Word, Words
from bench.cli.output import emit, emit_json, emit_verdicts, write
from bench.errors import UserError, why
from bench.show.export import FLEET_FORMATS

if TYPE_CHECKING:
    from bench.judge.fleet.model import Fleet

fleet = Typer(help="Many nodes: every node, every pair, one verdict.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, Option("--json", help="The fleet document on standard output, nothing else.")]
Folder = Annotated[Path, Argument(metavar="DIR", help="The folder with the nodes' run documents.")]


@fleet.command("join")
def join(
    folder: Folder,
    expect: options.Expect = None,
    newest: options.Newest = False,
    against: options.Against = None,
    again: options.Again = None,
    profile: options.Profiles = None,
    page: Annotated[File, Option(help="Write the fleet page (HTML) there.")] = None,
    json: Json = False,
    quiet: options.Quiet = False,
    exit_zero: options.ExitZero = False,
) -> int:
    """Judge what srun, an Indexed Job, Ray or `bench fleet run` left in DIR. Nothing is measured.

    Exit status: 0 GO, 1 NO-GO, 2 no verdict, 3 INCONCLUSIVE, which a host without a result makes it.

    Examples:  bench fleet join /shared/acceptance --expect hosts.txt    bench fleet join results/fleet/3f9a --json
    """
    from bench.fleet.join.folder import join_folder
    from bench.workflows.fleet import expected, judgement

    found = join_folder(folder, expected(expect), judgement(profile), newest=newest, against=against, again=again)
    return conclude(found, page=page, json=json, quiet=quiet, exit_zero=exit_zero, where=str(page or folder))


@fleet.command("export")
def export(
    folder: Folder,
    format: Annotated[  # noqa: A002 - the option is called so
        str | None,
        Option("--format", "-f", autocompletion=lambda: [*FLEET_FORMATS], help=", ".join(FLEET_FORMATS) + "."),
    ] = None,
    output: options.Output = None,
    expect: options.Expect = None,
    newest: options.Newest = False,
    against: options.Against = None,
    again: options.Again = None,
    profile: options.Profiles = None,
    max_age: Annotated[Word, Option(help="nagios: if the oldest run is older than this (26h, 90m): unknown.")] = None,
) -> int:
    """The fleet of DIR, joined as `bench fleet join` does, for Prometheus, CI, Nagios or a pull request.

    Every named host is there with its one state; a missing one is an error, never skipped.

    Exit status: 0 it was written, 2 not; nagios is a plugin: 0, 2, 3, 3 for GO, NO-GO, no verdict, INCONCLUSIVE.

    Examples:  bench fleet export results/fleet/3f9a -f junit -o fleet.xml
               bench fleet export /shared/acceptance --expect hosts.txt -f markdown >> "$GITHUB_STEP_SUMMARY"
    """
    from bench.fleet.join.folder import join_folder
    from bench.judge.gate import exit_status
    from bench.show.export import Export, nagios, render
    from bench.workflows.fleet import expected, judgement

    name = known_format(format, FLEET_FORMATS)
    try:
        found = join_folder(folder, expected(expect), judgement(profile), newest=newest, against=against, again=again)
        stale = _stale(found, max_age)
    except UserError as error:
        if name != "nagios":
            raise
        return no_answer(name, error, nagios.unknown(str(error), "FLEET"))
    write(render(name, Export(found, stale=stale)), output, name)
    return plugin_status(name, 3 if stale else exit_status(found.decision))


def _stale(found: Fleet, max_age: str | None) -> str | None:
    """Why the fleet may not answer any more, by its oldest run that counts. Raises UserError for what is no age."""
    from bench.model import Code
    from bench.workflows.judging import too_old

    oldest = options.age(max_age)
    if found.measured_at is None:
        return None if oldest is None else f"{Code.STALE}: no node has a run"
    return too_old(found.measured_at, "the oldest run", oldest)


@fleet.command("run")
def run(
    inventory: Annotated[
        Words, Option("-i", "--inventory", help="Any ansible inventory: file, plugin, or 'HOST,'; again for more.")
    ] = None,
    slurm: Annotated[bool, Option("--slurm", help="The nodes of the allocation that this runs in.")] = False,
    ray: Annotated[
        Word, Option(metavar="ADDRESS", help="The nodes of that Ray cluster: HOST:PORT, auto or ray://...")
    ] = None,
    limit: Annotated[
        str, Option(help="Which hosts: an ansible pattern, 'gpu:!n7'; for Slurm and Ray names, 'n1*,!n17'.")
    ] = "all",
    resume: Annotated[Word, Option(metavar="RUN", help="Go on with that run: its folder or id.")] = None,
    effort: Annotated[str, Option(envvar="BENCH_EFFORT", help="quick, standard or thorough.")] = "quick",
    profile: options.Profiles = None,
    probe: Annotated[Words, Option(help="Only this probe in the sweep; again for more.")] = None,
    storage: Annotated[
        Words, Option(envvar="BENCH_STORAGE", help="Directory on the nodes to measure; again for more.")
    ] = None,
    shared: Annotated[
        Word, Option(metavar="DIR", help="Shared storage: read it from one node, then from all at once.")
    ] = None,
    accelerator: options.Accelerator = None,
    pairs: Annotated[str, Option(help="Which pairs: auto (all up to 32 nodes), all, random, none.")] = "auto",
    collective: Annotated[bool, Option(help="An all-reduce over all nodes; needs torch there.")] = True,
    ranks_per_node: Annotated[
        int | None, Option(min=1, max=64, help="Ranks of a node in the all-reduce; default: one a GPU, one without.")
    ] = None,
    at_once: Annotated[
        int | None, Option(min=1, help="At most so many nodes measure one storage system at a time.")
    ] = None,
    pairs_at_once: Annotated[int | None, Option(min=1, help="At most so many pairs at a time.")] = None,
    spread: Annotated[float, Option(min=0, help="Begin within so many seconds, each host at its own moment.")] = 0.0,
    budget: Annotated[float | None, Option(min=1, help="Seconds a node may take; default by the effort.")] = None,
    python: Annotated[str, Option(help="Python on the nodes that has aiready-bench.")] = "python3",
    stage: Annotated[
        bool, Option("--stage", help="Bring the product to nodes that lack it: same Python, about 70 MB.")
    ] = False,
    bundle: Annotated[
        File, Option(help="Bring this file of `make bundle` instead: nodes of another Python or processor.")
    ] = None,
    node_env: Annotated[
        Words, Option(help="NAME=VALUE for the nodes' commands, nothing secret; {host} is the node's name.")
    ] = None,
    sign: Annotated[File, Option(metavar="KEY", help="Sign what came, all of it, as bench sign DIR does.")] = None,
    confirm: Annotated[bool, Option(help="Measure once more who is slower than its siblings.")] = True,
    results: options.Results = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print what would be sent and written where.")] = False,
    json: Json = False,
    quiet: options.Quiet = False,
    exit_zero: options.ExitZero = False,
) -> int:
    """Measure every node, every pair and all together; one verdict.

    -i needs ssh and aiready-bench[fleet] here, --slurm an allocation, --ray aiready-bench[ray].

    Exit status: 0 GO, 1 NO-GO, 2 no verdict, 3 INCONCLUSIVE, which a host without a result makes it.

    Examples:  bench fleet run -i hosts.ini --storage /data    bench fleet run --resume 3f9a1c
               bench fleet run --slurm --storage /data         bench fleet run --ray auto --storage /data
    """
    from bench.workflows import evidence
    from bench.workflows import fleet as fleet_run
    from bench.workflows.site import results_root

    if sign is not None:
        evidence.check_key(sign)
    asked = fleet_run.FleetOptions(
        inventory=inventory or [], slurm=slurm, ray=ray, limit=limit, effort=effort, probe=probe or [],
        storage=storage or [], profile=profile or [], accelerator=accelerator, pairs=pairs, collective=collective,
        at_once=at_once, pairs_at_once=pairs_at_once, spread=spread, budget=budget, python=python,
        node_env=node_env or [], confirm=confirm, shared=shared, stage=stage, bundle=bundle, ranks=ranks_per_node,
    )  # fmt: skip
    root = results_root(results)
    if dry_run:
        emit(fleet_run.dry_run(asked, root))
        return 0
    folder, measured = fleet_run.measure(asked, root, resume, progress=not (quiet or json))
    if sign is not None:
        evidence.sign_fleet(folder, sign, profile or [], evidence.told_now(None, None))
    page = folder / "fleet.html"
    return conclude(measured, page=page, json=json, quiet=quiet, exit_zero=exit_zero, where=str(page))


def conclude(found: Fleet, *, page: Path | None, json: bool, quiet: bool, exit_zero: bool, where: str) -> int:
    """Show the fleet; the contract's exit status. Raises UserError when the page cannot be written."""
    from bench.judge.gate import exit_status
    from bench.show.html.page import render_fleet
    from bench.show.terminal.fleet_screen import render

    if page is not None:
        try:
            page.write_text(render_fleet(found), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--page {page}: {why(error)}") from error
    if json:
        emit_json(found.model_dump(mode="json"))
    elif quiet:
        emit_verdicts(found.verdicts)
    else:
        emit(render(found, where))
    return 0 if exit_zero else exit_status(found.decision)
