"""Runs the load against the simulated server, both as processes, and holds what it says against the server's log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.common.pipe import Record, Refused, of
from probes.endpoint.plan import Settings
from probes.endpoint.records import Answer, Window, read
from tests.forks import run, serving

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Simulated:
    port: int
    log: Path
    scheme: str = "http"
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def truth(self) -> list[dict[str, Any]]:
        """What it served, in the order in which it arrived."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sorted(map(json.loads, lines), key=lambda entry: entry["n"])


@contextmanager
def simulated(folder: Path, **config: Any) -> Iterator[Simulated]:
    log = folder / "truth.jsonl"
    log.unlink(missing_ok=True)
    with serving("tests.probes.endpoint.simulated", json.dumps({"log": str(log), **config})) as port:
        host = "[::1]" if config.get("host") == "::1" else "127.0.0.1"
        yield Simulated(port, log, "https" if config.get("certificate") else "http", host)


@dataclass(frozen=True)
class Loaded:
    """What the load said, and how it ended."""

    records: list[Record]
    stdout: str
    stderr: str
    returncode: int

    @property
    def held(self) -> list[Answer]:
        return [answer for answer in of(self.records, Answer) if answer.stage == "held"]

    @property
    def window(self) -> Window:
        return next(window for window in of(self.records, Window) if window.stage == "held")

    @property
    def refused(self) -> Refused | None:
        return next(iter(of(self.records, Refused)), None)


def loaded(url: str, env: Mapping[str, str] | None = None, **settings: Any) -> Loaded:
    """The load to its end, at 40 requests a second unless told otherwise."""
    given = {"seconds": 4.0, "enough": 60, "rate": 40.0, "max_rate": 40.0, "prompt_tokens": 16, "output_tokens": 8,
             "self_check": 0.5}  # fmt: skip
    told = Settings(url=url, **{**given, **settings})
    with serving("probes.endpoint.load.echo") as port:
        done = run(
            "probes.endpoint.load.main", ["--echo", str(port)], stdin=told.text() + "\n", timeout=120,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    return Loaded(read(done.stdout, cut=True), done.stdout, done.stderr, done.returncode)


def wrong(load: Loaded, truth: list[dict[str, Any]]) -> list[str]:
    """Everything in which the held window's counts differ from the server's log, and chunks seen before they left."""
    served = truth[-len(load.held) :] if load.held else []
    if len(truth) != len(of(load.records, Answer)) + 1:  # the first completion
        return [f"{len(truth)} served, {len(of(load.records, Answer)) + 1} asked"]
    found = []
    for answer, entry in zip(load.held, served, strict=True):
        mine, its = (len(answer.chunks), answer.token_count), (len(entry["chunks"]), entry["tokens"])
        if (answer.counted == "usage" and mine != its) or (answer.counted == "chunks" and mine[0] != its[0]):
            found.append(f"{mine} chunks and tokens, truly {its}")
    stamps = sorted(load.window.began + at for answer in load.held for at in answer.chunks)
    left = sorted(at for entry in served for at in entry["chunks"])
    found += [f"seen {b - a:.6f} s before it left" for a, b in zip(stamps, left, strict=False) if a < b - 2e-6]
    return found
