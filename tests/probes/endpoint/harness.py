"""Runs the load against the simulated server, both as processes, and holds what it says against the server's log."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from probes.endpoint.plan import Settings
from probes.endpoint.records import Answer, Record, Refused, Window, of, read

ROOT = Path(__file__).parents[3]
#: Forks of a process that has imported what the programs below import: to start an interpreter and import it takes
#: longer than most of them run. `bench run --endpoint` itself starts them as anywhere: `test_probe`.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["probes.endpoint.load.client", "probes.endpoint.load.window"])


def forks_begin() -> None:
    """The process that forks is there, and is one of pytest's until it ends."""
    forkserver.ensure_running()


def _program(module: str, words: tuple[str, ...], files: tuple[str, str, str], env: Mapping[str, str]) -> None:
    """In the fork: what ``python -m`` does, with these standard files."""
    for number, name in enumerate(files):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY), number)
    os.environ.clear()
    os.environ.update(env)
    sys.stdin, sys.stdout, sys.stderr = (open(number, "w" if number else "r", closefd=False) for number in range(3))  # noqa: SIM115
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextmanager
def _forked(module: str, *words: str, files: tuple[str, str, str], env: Mapping[str, str]) -> Iterator[BaseProcess]:
    one = _FORKS.Process(target=_program, args=(module, words, files, dict(env)), daemon=True)
    one.start()
    try:
        yield one
    finally:
        one.kill()
        one.join()
        one.close()


@contextmanager
def process(module: str, *words: str, quiet: bool = False) -> Iterator[int]:
    """A server of ours for as long as the ``with`` lasts; yields its port. ``quiet``: what it logs is dropped."""
    with tempfile.NamedTemporaryFile("r") as said:
        files = (os.devnull, said.name, os.devnull if quiet else "/proc/self/fd/2")
        with _forked(module, *words, files=files, env=os.environ) as one:
            while not (found := re.search(r" on .*?(\d+)\n", Path(said.name).read_text())):
                assert one.is_alive(), f"{module} ended before it served"
                time.sleep(0.005)
            yield int(found[1])


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
    with process("tests.probes.endpoint.simulated", json.dumps({"log": str(log), **config})) as port:
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
    with process("probes.endpoint.load.echo") as port, tempfile.TemporaryDirectory() as name:
        stdin, stdout, stderr = (Path(name) / which for which in ("stdin", "stdout", "stderr"))
        stdin.write_text(told.text() + "\n")
        for file in (stdout, stderr):
            file.touch()
        files, words = (str(stdin), str(stdout), str(stderr)), ("--echo", str(port))
        with _forked("probes.endpoint.load.main", *words, files=files, env={**os.environ, **(env or {})}) as one:
            one.join(120)
            assert one.exitcode is not None, "the load did not end"
            out, err = stdout.read_text(), stderr.read_text()
            return Loaded(read(out, cut=True), out, err, one.exitcode)


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
