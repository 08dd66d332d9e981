"""Who this task is, and who the others are, by what the site's launcher says: Slurm, an Indexed Job, Ray, MPI."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.fleet.errors import FleetError
from bench.fleet.hosts import HOSTS_FILE, checked, read_hosts, same_host
from bench.measure import tools
from bench.measure.probe import ProbeError
from bench.store.errors import one_line

#: A number of this task among all, one a node: Kubernetes' Indexed Job, Open MPI, PMI (MPICH, Intel MPI).
_RANKS = ("JOB_COMPLETION_INDEX", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def hosts_of(words: str | None, folder: Path, env: Mapping[str, str] = os.environ) -> list[str]:
    """All nodes, in the order of their ranks: those named, Slurm's, or those of ``hosts.txt``. Raises FleetError."""
    if words is not None and "," in words and not Path(words).exists():
        return checked([word.strip() for word in words.split(",")], "--hosts")
    if words is not None:
        return read_hosts(Path(words))
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST")
    if nodes:
        return _slurm(nodes, env)
    if (folder / HOSTS_FILE).exists():
        return read_hosts(folder / HOSTS_FILE)
    raise FleetError(f"no launcher says who takes part; name all nodes with --hosts FILE, or in {folder / HOSTS_FILE}")


def _slurm(nodes: str, env: Mapping[str, str]) -> list[str]:
    """Slurm writes ``gpu[01-04,7]``, and has a command of its own that says what this means."""
    conf = {name: env[name] for name in ("SLURM_CONF",) if name in env}
    try:
        done = tools.run(["scontrol", "show", "hostnames", nodes], timeout=30, env=conf)
    except ProbeError as error:
        raise FleetError(one_line(f"scontrol: {error.reason}; name all nodes with --hosts FILE")) from error
    if done.returncode:
        raise FleetError(one_line(f"scontrol show hostnames: {done.stderr.strip()}; name all nodes with --hosts FILE"))
    return checked(done.stdout.split(), "scontrol show hostnames")


def host_of(hosts: Sequence[str], host: str | None, rank: int | None, env: Mapping[str, str] = os.environ) -> str:
    """This task's node among ``hosts``. Raises FleetError when nothing says which one it is."""
    if env.get("SLURM_LOCALID", "0") != "0":
        raise FleetError("this is not the only task on its node; start one a node: srun --ntasks-per-node=1")
    if host is not None:
        return _named(hosts, host, "--host")
    if rank is not None:
        return _numbered(hosts, rank, "--rank")
    own = env.get("SLURMD_NODENAME") or socket.gethostname()
    found = [name for name in hosts if same_host(name, own)]
    if len(found) == 1:
        return found[0]
    number = next(((name, env[name]) for name in _RANKS if env.get(name, "").isdigit()), None)
    if number is not None:
        return _numbered(hosts, int(number[1]), number[0])
    raise FleetError(one_line(f"{own!r} is none of the {len(hosts)} nodes named; say which with --host or --rank"))


def _named(hosts: Sequence[str], host: str, where: str) -> str:
    if host not in hosts:
        raise FleetError(one_line(f"{where} {host}: is none of the {len(hosts)} nodes named"))
    return host


def _numbered(hosts: Sequence[str], rank: int, where: str) -> str:
    if not 0 <= rank < len(hosts):
        raise FleetError(one_line(f"{where} {rank}: there are {len(hosts)} nodes, numbered from 0"))
    return hosts[rank]


def own_address(wanted: str | None = None) -> str:
    """Where the others reach this node: on the card, or in the network, that is wanted; else what its own name stands
    for; else its first address that leaves the machine. Raises FleetError.
    """
    cards = _addresses()
    if wanted is not None:
        found = [address for card, address in cards if card == wanted or _within(address, wanted)]
        if not found:
            known = ", ".join(f"{card} {address}" for card, address in cards[:6])
            raise FleetError(one_line(f"--network {wanted}: this node has no address there; it has {known or 'none'}"))
        return found[0]
    own = [address for _, address in cards]
    named = [address for address in _resolved(socket.gethostname()) if address in own]
    if not (named or own):
        raise FleetError("this node has no address beside its loopback; say which network to use with --network")
    return (named or own)[0]


def _addresses() -> list[tuple[str, str]]:
    """(card, address) of every card that is up, loopback and link-local left out, IPv4 first."""
    import psutil

    up = {card for card, state in psutil.net_if_stats().items() if state.isup}
    found = [
        (card, one.address)
        for card, all_of_it in psutil.net_if_addrs().items()
        for one in all_of_it
        if card in up and one.family in (socket.AF_INET, socket.AF_INET6) and _leaves(one.address)
    ]
    return sorted(found, key=lambda pair: ":" in pair[1])


def _leaves(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return not (parsed.is_loopback or parsed.is_link_local)


def _within(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _resolved(name: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []
