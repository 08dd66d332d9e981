"""``bench fleet``: many nodes, one verdict. ``run`` measures them; ``join`` judges what any launcher produced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import settings
from bench.cli.errors import CliError
from bench.cli.output import emit

if TYPE_CHECKING:
    from bench.fleet.join import Judgement
    from bench.judge.fleet_nouns import Fleet

Words = list[str] | None

fleet = typer.Typer(
    name="fleet",
    help="Many nodes: every node, every pair, one verdict.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Profiles = Annotated[Words, typer.Option("--profile", envvar="BENCH_PROFILE", help="Profile by name or file; again.")]
Json = Annotated[bool, typer.Option("--json", help="The fleet document on standard output, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="One line a profile.")]
ExitZero = Annotated[bool, typer.Option("--exit-zero", help="Status 0 whatever the verdict.")]


@fleet.command("join")
def join(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the nodes' run documents.")],
    expect: Annotated[
        str | None, typer.Option(help="The hosts that were named: a file with one a line, or HOST,HOST,...")
    ] = None,
    newest: Annotated[bool, typer.Option("--newest", help="Of several runs of a host the newest counts.")] = False,
    profile: Profiles = None,
    page: Annotated[Path | None, typer.Option(help="Write the fleet page (HTML) there.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    exit_zero: ExitZero = False,
) -> int:
    """Judge what srun, an Indexed Job, Ray or `bench fleet run` left in DIR. Nothing is measured.

    Examples:  bench fleet join /shared/acceptance --expect hosts.txt    bench fleet join results/fleet/3f9a --json
    """
    from bench.fleet.errors import FleetError
    from bench.fleet.folder import join_folder

    try:
        found = join_folder(folder, _expected(expect), judgement(profile), newest=newest)
    except FleetError as error:
        raise CliError(str(error)) from error
    return conclude(found, page=page, json=json, quiet=quiet, exit_zero=exit_zero, where=str(page or folder))


def _expected(expect: str | None) -> list[str] | None:
    """The hosts of ``--expect``; None when it was not given and the folder itself must say."""
    from bench.fleet.expected import checked, read_hosts

    if expect is None:
        return None
    if "," in expect and not Path(expect).exists():
        return checked([word.strip() for word in expect.split(",")], "--expect")
    return read_hosts(Path(expect))


def judgement(profile: Sequence[str] | None) -> Judgement:
    """By what the fleet is judged: the profiles asked for and what the probes declare."""
    from bench.fleet.join import Judgement

    metrics = settings.declared_metrics()
    profiles = settings.load_profiles(profile or settings.config().get("profile", []), metrics)
    return Judgement(profiles, metrics, settings.metric_owners())


def conclude(found: Fleet, *, page: Path | None, json: bool, quiet: bool, exit_zero: bool, where: str) -> int:
    """Show the fleet; the contract's exit status."""
    from bench.judge.gate import exit_status

    if page is not None:
        _write_page(found, page)
    if json:
        emit(found.model_dump_json(indent=2))
    elif quiet:
        emit("\n".join(f"{v.decision.value} {v.profile} score {v.score:.0f}" for v in found.verdicts))
    else:
        from bench.show.fleet_screen import render

        emit(render(found, where))
    return 0 if exit_zero else exit_status(found.decision)


def _write_page(found: Fleet, page: Path) -> None:
    from bench.show.fleet_page import render
    from bench.store.errors import why

    try:
        page.write_text(render(found), encoding="utf-8")
    except OSError as error:
        raise CliError(f"--page {page}: {why(error)}") from error
