"""What a fleet run will do, written down before it begins: the same words are resumed after the controller has died."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.errors import UserError
from bench.fleet.files import PLAN, read_object, write_json
from bench.fleet.job_script import VARIABLE
from bench.measure.recording import redact
from bench.store.documents import first_error
from bench.store.errors import one_line

SCHEMA = "aiready-bench/fleet-plan"
SCHEMA_VERSION = 1
_SECRET = re.compile(r"(?i)token|secret|passw|credential|api_?key|private|psk|hmac")
#: What `bench run` takes at most on a node, by effort, and what one pair takes: for the node's own bound.
BUDGET_SECONDS = {"quick": 300.0, "standard": 1200.0, "thorough": 4 * 3600.0}
PAIR_SECONDS = {"quick": 150.0, "standard": 420.0, "thorough": 1800.0}


@dataclass(frozen=True, slots=True)
class HostVars:
    """What the inventory says of a host for us: its address on the data network, its Python, its storage system."""

    address: str
    python: str = "python3"
    storage: str = ""
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """All that a controller needs to begin, or to go on. Commands are lines for ``sh``; in them ``{host}``,
    ``{address}`` (of the pair's server) and ``{python}`` stand for the host's own. Seconds throughout.
    """

    id: str
    inventory: tuple[str, ...]
    hosts: tuple[str, ...]
    variables: dict[str, HostVars]
    sweep: str
    budget: float
    pairs: str = "auto"
    pair_client: str = ""
    pair_server: str = ""
    pair_ready: str = "ready"
    pair_budget: float = 150.0
    collective: str = ""
    collective_budget: float = 120.0
    shared: str = ""
    shared_path: str = ""
    at_once: int | None = None
    pairs_at_once: int | None = None
    spread: float = 0.0
    confirm: bool = True
    stage: bool = False
    bundle: str = ""
    seed: int = 7
    transport: str = "ansible"  # `bench.fleet.transport.connect`; ``inventory`` says where, for each of them

    def save(self, folder: Path) -> None:
        """Write it, once. Raises UserError."""
        write_json(folder / PLAN, {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(self)})

    def command(self, text: str, host: str, address: str = "", **words: str) -> str:
        """The command for that host."""
        known = {"host": host, "address": address, "python": self.variables[host].python, **words}
        return re.sub(r"\{([a-z]+)\}", lambda m: shlex.quote(known[m[1]]) if m[1] in known else m[0], text)

    def with_product(self, places: Mapping[str, str]) -> FleetPlan:
        """The plan with the folders in which hosts have the product, for their Python."""
        found = {host: replace(v, env={**v.env, "PYTHONPATH": places[host]}) if host in places else v
                 for host, v in self.variables.items()}  # fmt: skip
        return replace(self, variables=found)

    def env(self, host: str) -> dict[str, str]:
        """The environment of that host's commands; ``{host}`` in a value is its name."""
        return {name: value.replace("{host}", host) for name, value in self.variables[host].env.items()}


def load(folder: Path) -> FleetPlan:
    """The plan of a run that is to be resumed. Raises UserError."""
    found = read_object(folder / PLAN)
    if (found.get("schema"), found.get("schema_version")) != (SCHEMA, SCHEMA_VERSION):
        raise UserError(one_line(f"{folder / PLAN}: is not the plan of a fleet run; name its folder, or its id"))
    try:
        return TypeAdapter(FleetPlan).validate_python(found)
    except ValidationError as error:
        message = f"{folder / PLAN}: is damaged: {first_error(error)}; start the fleet run anew"
        raise UserError(one_line(message)) from error


def checked_env(words: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` for the nodes. Raises UserError for what is no such thing, or looks like a secret: the commands
    of a node stand in its process list.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not VARIABLE.fullmatch(name):
            raise UserError(one_line(f"--node-env {redact(word)}: must be NAME=VALUE"))
        if _SECRET.search(name):
            raise UserError(f"--node-env {name}: looks like a secret, which has no place there; put it into a file")
        found[name] = value
    return found


def host_vars(host: str, values: Mapping[str, Any], env: Mapping[str, str], python: str) -> HostVars:
    """From the inventory's variables: ``bench_addr``, ``bench_python``, ``bench_storage``, ``bench_env``; all optional.

    Nothing else of them is kept, because passwords may stand there. Raises UserError.
    """
    own = values.get("bench_env", {})
    if not isinstance(own, dict):
        raise UserError(one_line(f"inventory: bench_env of {host} is not a table of names and values"))
    own = checked_env([f"{name}={value}" for name, value in own.items()])
    return HostVars(
        address=str(values.get("bench_addr") or values.get("ansible_host") or host),
        python=str(values.get("bench_python") or python),
        storage=str(values.get("bench_storage") or ""),
        env={**env, **own},
    )


def waves(hosts: Sequence[str], group: Mapping[str, str], most: int | None) -> list[list[str]]:
    """Hosts that may measure at once: at most ``most`` of one storage system in a wave. All in one without a bound."""
    if most is None:
        return [list(hosts)] if hosts else []
    found: dict[int, list[str]] = defaultdict(list)
    counts = Counter[str]()
    for host in hosts:
        system = group.get(host, "")
        found[counts[system] // most].append(host)
        counts[system] += 1
    return [found[number] for number in sorted(found)]
