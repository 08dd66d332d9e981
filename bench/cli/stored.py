"""What the commands on stored runs share: which node is meant, and options."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.store.errors import one_line
from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.store.index import Index

Results = Annotated[Path | None, typer.Option(envvar="BENCH_RESULTS", help="Where runs are stored.")]
NodeOption = Annotated[
    str | None,
    typer.Option("--node", "--host", help="Host name of the node; default: this one, or the only one stored."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def node_meant(index: Index, named: str | None) -> str:
    """The node that was named, else this one where it has runs, else the only one. Raises CliError, one line."""
    hosts = index.hosts()
    if not hosts:
        raise CliError(f"no run is stored in {index.root}; measure with: bench run")
    if named is not None:
        if named not in hosts:
            raise CliError(one_line(f"--node {named}: no run of it is stored; there are {', '.join(hosts[:10])}"))
        return named
    here = socket.gethostname()
    if here in hosts:
        return here
    if len(hosts) > 1:
        raise CliError(one_line(f"no run of this node is stored; name one with --node: {', '.join(hosts[:10])}"))
    return hosts[0]
