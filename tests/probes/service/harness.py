"""Runs the load of the service probe against a service of our own, faster than a user may ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.model import Effort, Measurement
from probes.common.looks import Looks
from probes.common.pipe import Record
from probes.service.load.main import run
from probes.service.parse import parse, told
from probes.service.plan import Service, Settings
from probes.service.records import answers
from tests.forks import serving

ROOT = Path(__file__).parents[3]
LIMIT = 0.99


@contextmanager
def server(**config: Any) -> Iterator[int]:
    """Yields its port."""
    with serving("tests.probes.service.server", json.dumps(config)) as port:
        yield port


def service(port: int, rate: float = 100.0, **fields: Any) -> Service:
    """One on the loopback, with a budget that a busy machine keeps: a twentieth of it may a request be sent late."""
    given = {"name": "crm", "url": f"http://127.0.0.1:{port}/x", "budget_seconds": 30.0, **fields}
    return Service.model_construct(**{**Service(**given).model_dump(), "rate": rate})


class Asked:
    """What the load said of one service, and what is made of it."""

    def __init__(self, service: Service, requests: int = 60, effort: Effort = Effort.THOROUGH) -> None:
        self.service, seconds, found = service, requests / service.rate, list[Record]()
        self.looks: Looks = service.looks(effort, seconds)
        run(Settings((service,), effort, seconds, LIMIT), found.append)
        self.answers = answers(found)["crm"]
        self.lines = list(told(self.answers, service, self.looks, LIMIT))
        self.measurements = parse(self.answers, service, self.looks, LIMIT)

    def of(self, metric: str, **labels: str) -> list[Measurement]:
        return [m for m in self.measurements if m.metric == metric and m.labels.items() >= labels.items()]

    @property
    def ratio(self) -> Measurement:
        return self.of("service_success_ratio")[0]

    @property
    def codes(self) -> set[str | None]:
        return {answer.code for answer in self.answers}
