"""The three transports on the hosts of one testbed: what a controller, and a host that comes back, needs for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.judge.fleet.model import Fleet
from tests.fleet import slurm
from tests.fleet.raylets import Raylets
from tests.fleet.test_run import ENV, drive
from tests.fleet.testbed import Testbed

NAMES = ("ansible", "slurm", "ray")


class Way:
    """By ansible over ssh, where nothing is needed but the hosts themselves."""

    name = "ansible"

    def __init__(self, hosts: Testbed) -> None:
        self.hosts = hosts

    @property
    def options(self) -> dict[str, Any]:
        """Of `tests.fleet.drive`."""
        return {"inventory": str(self.hosts.inventory), "limit": ",".join(self.hosts.names)}

    @property
    def words(self) -> list[str]:
        """Of ``bench fleet run``; the inventory leaves the Python to ``--python``."""
        own = self.hosts.inventory.with_name("own.ini")
        lines = self.hosts.inventory.read_text().splitlines()
        own.write_text("\n".join(line for line in lines if "bench_python" not in line) + "\n")
        return ["-i", str(own)]

    @property
    def env(self) -> dict[str, str]:
        return dict(ENV)

    def power_on(self, *numbers: int) -> None:
        """Hosts that come back, and with them what the transport has on them."""
        for i in numbers:
            self.hosts.power_on(i)

    def drive(self, folder: Path, **options: Any) -> tuple[Fleet, str, float]:
        return drive(self.hosts, folder, env=self.env, **(self.options | options))


class SlurmWay(Way):
    name = "slurm"

    def __init__(self, hosts: Testbed, cluster: slurm.Slurm) -> None:
        super().__init__(hosts)
        self.cluster = cluster

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"transport": "slurm", "inventory": ""}

    @property
    def words(self) -> list[str]:
        return ["--slurm"]

    @property
    def env(self) -> dict[str, str]:
        return super().env | self.cluster.environment

    def power_on(self, *numbers: int) -> None:
        """Slurm takes a node that failed out of the allocation, so another is made."""
        super().power_on(*numbers)
        for i in numbers:
            self.cluster.start(i)
        self.cluster.allocate()


class RayWay(Way):
    name = "ray"

    def __init__(self, hosts: Testbed, cluster: Raylets) -> None:
        super().__init__(hosts)
        self.cluster = cluster

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"transport": "ray", "inventory": self.cluster.address}

    @property
    def words(self) -> list[str]:
        return ["--ray", self.cluster.address]

    def power_on(self, *numbers: int) -> None:
        super().power_on(*numbers)
        self.cluster.start(*numbers)


@contextmanager
def way_over(name: str, hosts: Testbed) -> Iterator[Way]:
    """That transport, up until the end of the ``with``."""
    if name == "ansible":
        yield Way(hosts)
        return
    if name == "slurm" and (reason := slurm.reason_for_none()):
        pytest.fail(reason)
    cluster = slurm.Slurm(hosts) if name == "slurm" else Raylets(hosts)
    try:
        cluster.up()
        if isinstance(cluster, slurm.Slurm):
            cluster.allocate()
            yield SlurmWay(hosts, cluster)
        else:
            yield RayWay(hosts, cluster)
    finally:
        cluster.down()
