"""Programs of ours as processes, forked from one that has imported what they import.

To start an interpreter and to import takes longer than most of them run, and there are many hundreds. What a start
itself loads is told by `tests.cli.test_start`; where the interpreter's own settings matter, there is `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FORKS = multiprocessing.get_context("forkserver")
_PROBES = [f"probes.{file.parent.name}.probe" for file in (ROOT / "probes").glob("*/probe.py")]
_FORKS.set_forkserver_preload(
    ["bench.cli.app", "bench.workflows.judging", "bench.show.terminal.screen",
     "probes.endpoint.load.client", "probes.endpoint.load.window", "probes.feed.load.arms",
     "probes.feed.load.loaders", *_PROBES]
)  # fmt: skip


def begin() -> None:
    """The process that forks is there, and is one of pytest's until it ends."""
    forkserver.ensure_running()


@contextmanager
def forked(
    module: str, words: Sequence[str], files: tuple[str, str, str], *, env: Mapping[str, str], cwd: str | Path = ROOT
) -> Iterator[BaseProcess]:
    """``python -m MODULE WORDS`` with these standard files; ended with the ``with``."""
    one = _FORKS.Process(target=_program, args=(module, tuple(words), files, dict(env), str(cwd)))
    one.start()
    try:
        yield one
    finally:
        one.kill()
        one.join()
        one.close()


@contextmanager
def serving(module: str, *words: str, quiet: bool = False) -> Iterator[int]:
    """A server for as long as the ``with`` lasts; yields the port that it tells. ``quiet``: what it logs is dropped."""
    with tempfile.NamedTemporaryFile("r") as said:
        files = (os.devnull, said.name, os.devnull if quiet else "/proc/self/fd/2")
        with forked(module, words, files, env=os.environ) as one:
            while not (found := re.search(r" on .*?(\d+)\n", Path(said.name).read_text())):
                assert one.is_alive(), f"{module} ended before it served"
                time.sleep(0.005)
            yield int(found[1])


def run(
    module: str, words: Sequence[str], *, env: Mapping[str, str], cwd: str | Path = ROOT, stdin: str = "",
    timeout: float = 280,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """As `subprocess.run` answers, with output as text."""
    with tempfile.TemporaryDirectory() as name:
        files = tuple(str(Path(name) / which) for which in ("stdin", "stdout", "stderr"))
        for file, text in zip(files, (stdin, "", ""), strict=True):
            Path(file).write_text(text)
        with forked(module, words, (files[0], files[1], files[2]), env=env, cwd=cwd) as one:
            one.join(timeout)
            if one.exitcode is None:
                raise subprocess.TimeoutExpired([module, *words], timeout)
            status = one.exitcode
        out, err = (Path(file).read_text() for file in files[1:])
        return subprocess.CompletedProcess([module, *words], status, out, err)


def _program(
    module: str, words: tuple[str, ...], files: tuple[str, str, str], env: Mapping[str, str], cwd: str
) -> None:
    for number, name in enumerate(files):
        file = os.open(name, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(file, number)
        os.close(file)
    multiprocessing.set_start_method(None, force=True)  # its own children are made as anywhere
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.path[0] = cwd
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
