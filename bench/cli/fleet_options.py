"""What ``bench fleet run`` takes on the command line, and what join and export both do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Words = list[str] | None

Effort = Annotated[str, typer.Option(envvar="BENCH_EFFORT", help="quick, standard or thorough.")]
Profiles = Annotated[Words, typer.Option("--profile", envvar="BENCH_PROFILE", help="Profile by name or file; again.")]
Probes = Annotated[Words, typer.Option("--probe", help="Only this probe in the sweep; again for more.")]
Storage = Annotated[
    Words, typer.Option(envvar="BENCH_STORAGE", help="Directory on the nodes to measure; again for more.")
]
Shared = Annotated[
    str | None, typer.Option(metavar="DIR", help="Shared storage: read it from one node, then from all at once.")
]
Accelerator = Annotated[
    str | None, typer.Option(envvar="BENCH_ACCELERATOR", help="auto, cuda, cpu or emulated[:NAME].")
]
Pairs = Annotated[str, typer.Option(help="Which pairs: auto (all up to 32 nodes), all, random, none.")]
Collective = Annotated[
    bool, typer.Option("--collective/--no-collective", help="An all-reduce over all nodes; needs torch there.")
]
Ranks = Annotated[
    int | None, typer.Option(min=1, max=64, help="Ranks of a node in the all-reduce; default: one a GPU, one without.")
]
AtOnce = Annotated[int | None, typer.Option(min=1, help="At most so many nodes measure one storage system at a time.")]
PairsAtOnce = Annotated[int | None, typer.Option(min=1, help="At most so many pairs at a time.")]
Spread = Annotated[float, typer.Option(min=0, help="Begin within so many seconds, each host at its own moment.")]
Budget = Annotated[float | None, typer.Option(min=1, help="Seconds a node may take; default by the effort.")]
NodeEnv = Annotated[
    Words, typer.Option(help="NAME=VALUE for the nodes' commands, nothing secret; {host} is the node's name.")
]
Confirm = Annotated[
    bool, typer.Option("--confirm/--no-confirm", help="Measure once more who is slower than its siblings.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="One line a profile.")]
Expect = Annotated[str | None, typer.Option(help="The hosts that were named: a file with one a line, or HOST,HOST,...")]
Newest = Annotated[bool, typer.Option("--newest", help="Of several runs of a host the newest counts.")]
Against = Annotated[
    Path | None, typer.Option(metavar="DIR", help="An earlier fleet run: judge what moved on all nodes together.")
]
Again = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A second measurement of the same hosts, which confirms.")
]
