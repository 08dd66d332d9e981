"""The ways to the hosts of a fleet run, each an engine that sites have: ansible over ssh, Slurm, Ray."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import UserError
from bench.fleet.transport.ansible import Ansible
from bench.fleet.transport.base import Transport
from bench.fleet.transport.ray import Ray
from bench.fleet.transport.slurm import Slurm
from bench.measure.tools import Signals
from bench.store.errors import one_line

ANSIBLE, SLURM, RAY = "ansible", "slurm", "ray"


def connect(kind: str, where: Sequence[str], signals: Signals | None = None) -> Transport:
    """The transport of that kind. ``where``: ansible's inventories, or the address of Ray's cluster.

    Raises UserError for a kind that this version does not have, and outside an allocation of Slurm.
    """
    if kind == ANSIBLE:
        return Ansible(where, signals)
    if kind == SLURM:
        return Slurm(signals)
    if kind == RAY and where:
        return Ray(where[0], signals)
    raise UserError(one_line(f"transport {kind!r}: this version has {ANSIBLE}, {SLURM} and {RAY}"))
