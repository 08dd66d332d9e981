"""From the options of ``bench fleet run`` to a plan, and from a plan to a fleet document."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, note
from bench.fleet.controller import FleetRun
from bench.fleet.files import checked, read_hosts
from bench.fleet.join.join import Judgement
from bench.fleet.join.pairs import PROBES
from bench.fleet.pair_rounds import ceiling, schedule
from bench.fleet.plan import BUDGET_SECONDS, PAIR_SECONDS, FleetPlan, checked_env, host_vars, load, waves
from bench.fleet.staging import fits
from bench.fleet.transport import ANSIBLE, RAY, SLURM, connect
from bench.fleet.transport.base import Transport
from bench.judge.fleet.model import Fleet
from bench.measure.probe import Interrupted
from bench.measure.tools import Signals
from bench.model import Run
from bench.show.terminal.progress import fleet_listener
from bench.store.errors import StoreError
from bench.store.runs import Store
from bench.workflows.catalog import declared, load_catalog, shipped_profiles
from bench.workflows.request import check_accelerator, probe_names
from bench.workflows.sessions import by_priors
from bench.workflows.site import check_installation

_PORT, _COLLECTIVE_PORT = 5201, 5301
_COLLECTIVE_SECONDS = 120.0
_WITH_PEERS = (*PROBES, "collective")


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What the command line said."""

    inventory: list[str]
    limit: str
    effort: str
    probe: list[str]
    storage: list[str]
    profile: list[str]
    accelerator: str | None
    pairs: str
    collective: bool
    at_once: int | None
    pairs_at_once: int | None
    spread: float
    budget: float | None
    python: str
    node_env: list[str]
    confirm: bool
    shared: str | None
    stage: bool = False
    bundle: Path | None = None
    ranks: int | None = None
    slurm: bool = False
    ray: str | None = None


def expected(expect: str | None) -> list[str] | None:
    """The hosts of ``--expect``; None when it was not given and the folder itself must say."""
    if expect is None:
        return None
    if "," not in expect or Path(expect).exists():
        return read_hosts(Path(expect))
    return checked([word.strip() for word in expect.split(",")], "--expect")


def judgement(profile: Sequence[str] | None) -> Judgement:
    """By what the fleet is judged: the profiles asked for and what the probes declare."""
    catalog = load_catalog(profile)
    return Judgement(catalog.profiles, catalog.metrics, catalog.owners, by_priors(catalog))


def measure(asked: FleetOptions, root: Path, resume: str | None, *, progress: bool) -> tuple[Path, Fleet]:
    """Plan and measure, or go on with a run that was begun: its folder, and the fleet. Raises UserError, one line."""
    check_installation()
    by = judgement(asked.profile)
    folder = _resumed(root, resume) if resume else None
    store = Store(root, warn=note)

    def keep(run: Run) -> None:
        with suppress(StoreError):  # it is stored already, or its start is no time: the fleet's own folder has it
            store.save(run)

    try:
        with Signals() as signals:
            if folder is not None:
                plan = load(folder)
                transport = connect(plan.transport, plan.inventory, signals)
            else:
                transport = connect(*_where(asked), signals)
                plan = make_plan(asked, transport)
                folder = root / "fleet" / plan.id
                plan.save(folder)
            with fleet_listener(len(plan.hosts), shown=progress) as listen:
                return folder, FleetRun(folder, plan, transport, listen, keep).run(by)
    except Interrupted as error:
        again = f"; go on with: bench fleet run --resume {folder}" if folder else ""
        raise UserError(f"interrupted{again}", status=128 + error.signum) from error


def _resumed(root: Path, word: str) -> Path:
    found = next((place for place in (Path(word), root / "fleet" / word) if (place / "plan.json").is_file()), None)
    if found is None:
        known = sorted((root / "fleet").glob("*/plan.json"))[-3:]
        there = f"; there are {', '.join(path.parent.name for path in known)}" if known else ""
        raise UserError(f"--resume {word}: no fleet run there{there}")
    return found.resolve()


def _where(asked: FleetOptions) -> tuple[str, list[str]]:
    """The transport, and where it finds the hosts. Paths are made absolute, because ansible runs elsewhere; lists
    (``HOST,HOST``) stay as they are. Raises UserError for none or several of them, and for a file that is not there.
    """
    if bool(asked.inventory) + asked.slurm + (asked.ray is not None) != 1:
        raise UserError("fleet run: name the hosts with one of -i INVENTORY, --slurm, --ray ADDRESS, or --resume RUN")
    if asked.slurm:
        return SLURM, []
    if asked.ray is not None:
        return RAY, [asked.ray]
    for word in asked.inventory:
        if "," not in word and not Path(word).exists():
            raise UserError(f"-i {word}: no such inventory")
    return ANSIBLE, [word if "," in word else str(Path(word).resolve()) for word in asked.inventory]


def make_plan(asked: FleetOptions, transport: Transport) -> FleetPlan:
    """What the command line asks for, on the transport's hosts. Raises UserError."""
    kind, where = _where(asked)
    env = checked_env(asked.node_env)
    hosts = transport.hosts(asked.limit)
    if not hosts:
        look = f"; look at it with: ansible-inventory --graph -i {where[0]}" if kind == ANSIBLE else ""
        raise UserError(f"{' '.join([kind, *where])}: names no host for {asked.limit!r}{look}")
    if asked.effort not in BUDGET_SECONDS:
        raise UserError(f"--effort {asked.effort}: must be one of {', '.join(BUDGET_SECONDS)}")
    if asked.pairs not in ("auto", "all", "random", "none"):
        raise UserError(f"--pairs {asked.pairs}: must be auto, all, random or none")
    probe_names(asked.probe, "--probe", declared())  # each node would refuse it
    check_accelerator(asked.accelerator or "auto", "--accelerator")
    return FleetPlan(
        id=Store.new_id(),
        transport=kind,
        inventory=tuple(where),
        hosts=tuple(hosts),
        variables={host: host_vars(host, values, env, asked.python) for host, values in hosts.items()},
        sweep=_sweep(asked),
        budget=asked.budget or BUDGET_SECONDS[asked.effort],
        pairs=asked.pairs,
        pair_client=_bench(asked, [word for probe in PROBES for word in ("--probe", probe)], "--peer {address}"),
        pair_server=f"exec {{python}} -m bench peer --bind {{address}} --port {_PORT}",
        pair_ready="bench peer: ready",
        pair_budget=PAIR_SECONDS[asked.effort],
        collective=_collective(asked) if asked.collective else "",
        collective_budget=_COLLECTIVE_SECONDS,
        shared=_bench(asked, ["--probe", "storage", "--storage", asked.shared]) if asked.shared else "",
        shared_path=asked.shared or "",
        at_once=asked.at_once,
        pairs_at_once=asked.pairs_at_once,
        spread=asked.spread,
        confirm=asked.confirm,
        stage=asked.stage or asked.bundle is not None,
        bundle=_bundle(asked.bundle),
    )


def _bundle(file: Path | None) -> str:
    """The file, looked at before a node is asked. Raises UserError."""
    if file is None:
        return ""
    fits(str(file))
    if not file.is_file():
        raise UserError(f"--bundle {file}: no such file; make it with: make bundle")
    return str(file.absolute())


def _bench(asked: FleetOptions, words: list[str], open_words: str = "") -> str:
    """`bench run` on a node. The node's own verdict is not used, so it gets only profiles that every wheel has."""
    shipped = shipped_profiles()
    for profile in asked.profile:
        words = [*words, "--profile", profile] if profile in shipped else words
    fixed = shlex.join([*words, "--effort", asked.effort, "--json"])
    return f'exec {{python}} -m bench run {fixed} {open_words} --results "$PWD/results"'.replace("  ", " ")


def _sweep(asked: FleetOptions) -> str:
    """Alone, a node measures only its loopback: where pairs are measured what needs a peer is left to them."""
    alone = [probe.name for probe in declared().probes if probe.name not in _WITH_PEERS]
    chosen = asked.probe or (alone if asked.pairs != "none" else [])
    given = {"--probe": chosen, "--storage": asked.storage}
    given["--accelerator"] = [asked.accelerator] if asked.accelerator else []
    return _bench(asked, [word for name, values in given.items() for value in values for word in (name, value)])


def _collective(asked: FleetOptions) -> str:
    device = asked.accelerator if asked.accelerator in ("cuda", "cpu") else "auto"
    return (
        "exec {python} -m probes.collective.load.rank --rank {rank} --world {world} --address {own} "
        f"--master {{address}} --port {_COLLECTIVE_PORT} --device {device} --effort {asked.effort}"
        f"{f' --ranks {asked.ranks}' if asked.ranks else ''}"
    )


def dry_run(asked: FleetOptions, root: Path) -> str:
    """What would be done, as text: hosts, commands, how much for how long, what is written where. Raises UserError."""
    judgement(asked.profile)  # what cannot be judged is refused as it would be when it is measured
    plan = make_plan(asked, connect(*_where(asked)))
    rounds = ceiling(schedule(plan.hosts, plan.pairs, plan.seed), plan.pairs_at_once)
    sweeps = waves(plan.hosts, {host: plan.variables[host].storage for host in plan.hosts}, plan.at_once)
    lines = [
        "nothing was sent; this would be done:",
        f"hosts ({len(plan.hosts)}): {', '.join(plan.hosts)}",
        f"sweep: {len(sweeps)} wave(s) of at most {max(map(len, sweeps))}, {plan.budget:.0f} s each: {plan.sweep}",
        f"pairs: {sum(map(len, rounds))}, {len(rounds)} rounds of at most {plan.pair_budget:.0f} s: {plan.pair_client}",
        *(f"  round {n}: {', '.join(f'{a} to {b}' for a, b in one)}" for n, one in enumerate(rounds, 1)),
        f"collective: {plan.collective or 'none'}",
        f"shared storage: {plan.shared or 'none'}",
        *(f"environment of {host}: {shlex.join(f'{k}={v}' for k, v in plan.env(host).items())}"
          for host in plan.hosts if plan.env(host)),
        "written on each node: /var/tmp/aiready-bench-UID/RUN.* (removed after 7 days), and what the probes write "
        "into the storage directories (removed at once)",
        f"written here: {root / 'fleet'}/RUN/, and each node's run in {root / 'runs'}/",
    ]  # fmt: skip
    return "\n".join(lines)
