"""``bench fleet member``: one task a node, started by Slurm, Kubernetes or Ray, for the whole suite without ssh."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.errors import UserError, note

if TYPE_CHECKING:
    from bench.judge.fleet.model import Fleet
    from bench.workflows.fleet import Asked


def member(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder on storage that every node can write.")],
    hosts: Annotated[
        str | None,
        typer.Option(help="All nodes: a file with one a line, or HOST,HOST,...; by default Slurm's, or DIR/hosts.txt."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Which of them this one is; by default as it calls itself.")] = None,
    rank: Annotated[
        int | None, typer.Option(min=0, help="The same by its place in the list, from 0; an Indexed Job knows it.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="CARD|CIDR", help="The data network; by default that of the node's own name.")
    ] = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for nodes that have not come.")] = 120.0,
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
    node_env: options.NodeEnv = None,
    confirm: options.Confirm = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="No lines of progress.")] = False,
) -> int:
    """Be one node of a fleet run: the same command on every node, once, by srun, an Indexed Job or Ray. No ssh.

    Status 0 when the run is over, whatever it found: judge it with `bench fleet join DIR`. Under Slurm, `srun
    --ntasks-per-node=1` before it is all that it takes; elsewhere say which of the hosts this one is.

    Examples:  bench fleet member /shared/acc --storage /data
               bench fleet member /shared/acc --hosts hosts.txt --rank 3
    """
    from bench.workflows.fleet import Asked

    asked = Asked(
        inventory=[], limit="all", effort=effort, probe=probe or [], storage=storage or [], profile=profile or [],
        accelerator=accelerator, pairs=pairs, collective=collective, at_once=at_once, pairs_at_once=pairs_at_once,
        spread=spread, budget=budget, python=sys.executable, node_env=node_env or [], confirm=confirm, shared=shared,
        ranks=ranks_per_node,
    )  # fmt: skip
    found = _take_part(folder, asked, hosts, host, rank, network, wait, progress=not quiet)
    if found is not None:
        note(f"{found.decision.value}; judge it anywhere with: bench fleet join {folder}")
    return 0


def _take_part(
    folder: Path, asked: Asked, hosts: str | None, host: str | None, rank: int | None, network: str | None, wait: float,
    *, progress: bool,
) -> Fleet | None:  # fmt: skip
    from bench.fleet.errors import FleetError
    from bench.fleet.launcher import host_of, hosts_of, own_address
    from bench.fleet.member import Member
    from bench.fleet.plan import HostVars, checked_env
    from bench.measure.probe import Interrupted
    from bench.measure.signals import Signals
    from bench.show.fleet_progress import listener
    from bench.workflows import fleet as fleet_run
    from bench.workflows.site import check_installation

    check_installation()
    try:
        names = tuple(hosts_of(hosts, folder))
        own = HostVars(own_address(network), asked.python, env=checked_env(asked.node_env))
        name = host_of(names, host, rank)
        with Signals() as signals, listener(len(names), shown=progress) as listen:
            return Member(
                folder=folder.absolute(), hosts=names, host=name, variables=own,
                plan=lambda variables: fleet_run.plan_for(asked, names, variables),
                by=fleet_run.judgement(asked.profile), signals=signals, wait=wait, listen=listen,
            ).take_part()  # fmt: skip
    except FleetError as error:
        raise UserError(str(error)) from error
    except Interrupted as error:
        raise UserError("interrupted; the same command goes on", status=128 + error.signum) from error
