"""``bench fleet``: many nodes, one verdict. ``run`` measures them, over ssh, Slurm or Ray; ``join`` judges what it, or
anything else, has produced.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import fleet_export
from bench.cli import fleet_options as options
from bench.cli.output import emit
from bench.workflows import site as settings
from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.fleet.join.join import Judgement
    from bench.judge.fleet.model import Fleet

fleet = typer.Typer(
    name="fleet",
    help="Many nodes: every node, every pair, one verdict.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="The fleet document on standard output, nothing else.")]
ExitZero = Annotated[bool, typer.Option("--exit-zero", help="Status 0 whatever the verdict.")]


@fleet.command("join")
def join(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the nodes' run documents.")],
    expect: options.Expect = None,
    newest: options.Newest = False,
    against: options.Against = None,
    again: options.Again = None,
    profile: options.Profiles = None,
    page: Annotated[Path | None, typer.Option(help="Write the fleet page (HTML) there.")] = None,
    json: Json = False,
    quiet: options.Quiet = False,
    exit_zero: ExitZero = False,
) -> int:
    """Judge what srun, an Indexed Job, Ray or `bench fleet run` left in DIR. Nothing is measured.

    Examples:  bench fleet join /shared/acceptance --expect hosts.txt    bench fleet join results/fleet/3f9a --json
    """
    from bench.fleet.errors import FleetError
    from bench.fleet.files import join_folder

    try:
        by = judgement(profile)
        found = join_folder(folder, expected(expect), by, newest=newest, against=against, again=again)
    except FleetError as error:
        raise CliError(str(error)) from error
    return conclude(found, page=page, json=json, quiet=quiet, exit_zero=exit_zero, where=str(page or folder))


fleet.command("export")(fleet_export.export)


@fleet.command("run")
def run(
    inventory: Annotated[
        options.Words,
        typer.Option("-i", "--inventory", help="Any ansible inventory: file, plugin, or 'HOST,'; again for more."),
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="The nodes of the allocation that this runs in.")] = False,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The nodes of that Ray cluster: HOST:PORT, auto or ray://...")
    ] = None,
    limit: Annotated[
        str, typer.Option(help="Which hosts: an ansible pattern, 'gpu:!n7'; for Slurm and Ray names, 'n1*,!n17'.")
    ] = "all",
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with that run: its folder or id.")] = None,
    effort: options.Effort = "quick",
    profile: options.Profiles = None,
    probe: options.Probes = None,
    storage: options.Storage = None,
    shared: options.Shared = None,
    accelerator: options.Accelerator = None,
    pairs: options.Pairs = "auto",
    collective: options.Collective = True,
    ranks_per_node: options.Ranks = None,
    at_once: options.AtOnce = None,
    pairs_at_once: options.PairsAtOnce = None,
    spread: options.Spread = 0.0,
    budget: options.Budget = None,
    python: Annotated[str, typer.Option(help="Python on the nodes that has aiready-bench.")] = "python3",
    stage: Annotated[
        bool, typer.Option("--stage", help="Bring the product to nodes that lack it: same Python, about 70 MB.")
    ] = False,
    node_env: options.NodeEnv = None,
    confirm: options.Confirm = True,
    results: Annotated[Path | None, typer.Option(envvar="BENCH_RESULTS", help="Where runs are stored.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent and written where.")] = False,
    json: Json = False,
    quiet: options.Quiet = False,
    exit_zero: ExitZero = False,
) -> int:
    """Measure every node, every pair and all together; one verdict.

    -i needs ssh and aiready-bench[fleet] here, --slurm an allocation, --ray aiready-bench[ray].

    Examples:  bench fleet run -i hosts.ini --storage /data    bench fleet run --resume 3f9a1c
               bench fleet run --slurm --storage /data         bench fleet run --ray auto --storage /data
    """
    from bench.workflows import fleet as fleet_run

    asked = fleet_run.Asked(
        inventory=inventory or [], slurm=slurm, ray=ray, limit=limit, effort=effort, probe=probe or [],
        storage=storage or [], profile=profile or [], accelerator=accelerator, pairs=pairs, collective=collective,
        at_once=at_once, pairs_at_once=pairs_at_once, spread=spread, budget=budget, python=python,
        node_env=node_env or [], confirm=confirm, shared=shared, stage=stage, ranks=ranks_per_node,
    )  # fmt: skip
    root = settings.results_root(results)
    if dry_run:
        emit(fleet_run.dry_run(asked, root))
        return 0
    by = judgement(profile)
    done = fleet_run.measure(asked, root, resume, by, progress=not (quiet or json))
    page = done.folder / "fleet.html"
    return conclude(done.fleet, page=page, json=json, quiet=quiet, exit_zero=exit_zero, where=str(page))


def expected(expect: str | None) -> list[str] | None:
    """The hosts of ``--expect``; None when it was not given and the folder itself must say."""
    from bench.fleet.hosts import checked, read_hosts

    if expect is None:
        return None
    if "," in expect and not Path(expect).exists():
        return checked([word.strip() for word in expect.split(",")], "--expect")
    return read_hosts(Path(expect))


def judgement(profile: Sequence[str] | None) -> Judgement:
    """By what the fleet is judged: the profiles asked for and what the probes declare."""
    from bench.fleet.join.join import Judgement

    metrics = settings.declared_metrics()
    profiles = settings.load_profiles(profile or settings.config().get("profile", []), metrics)
    return Judgement(profiles, metrics, settings.metric_owners())


def conclude(found: Fleet, *, page: Path | None, json: bool, quiet: bool, exit_zero: bool, where: str) -> int:
    """Show the fleet; the contract's exit status."""
    from json import dumps

    from bench.judge.gate import exit_status
    from bench.show import wording as words

    if page is not None:
        _write_page(found, page)
    if json:
        emit(dumps(found.model_dump(mode="json"), indent=2, allow_nan=False))
    elif quiet:
        emit("\n".join(f"{v.decision.value} {v.profile} score {words.score(v.score)}" for v in found.verdicts))
    else:
        from bench.show.terminal.fleet_screen import render

        emit(render(found, where))
    return 0 if exit_zero else exit_status(found.decision)


def _write_page(found: Fleet, page: Path) -> None:
    from bench.show.html.fleet_page import render
    from bench.store.errors import why

    try:
        page.write_text(render(found), encoding="utf-8")
    except OSError as error:
        raise CliError(f"--page {page}: {why(error)}") from error
