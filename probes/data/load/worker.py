"""The process that opens damaged and hostile files: bounded in memory, unable to write, replaced when it dies."""

from __future__ import annotations

import multiprocessing
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from probes.data.description import Table
from probes.data.load.formats import opened
from probes.data.load.formats.shard import Bad, Shard, checksum

_MEMORY_BYTES = 4 << 30
_SHARDS_KEPT = 16
_OPEN_FILES = 64


class Worker:
    """Answers questions about files; each within ``seconds``, or the process is replaced and `Bad` says so."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._context = multiprocessing.get_context("fork")
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: str, path: Path, *words: Any) -> Any:
        """``count``: (samples, exact); ``read``: a Sample; ``checksum``: a text. Raises Bad."""
        try:
            self._pipe.send((question, path, *words))
            if not self._pipe.poll(self._seconds):
                raise Bad(f"timed_out: decoding did not end within {self._seconds:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(2.0)
            code = self._process.exitcode or 0
            self._replace()
            why = f"the decoder died of signal {-code}" if code < 0 else "the decoder ended"
            raise Bad(f"crashed: {why}") from error
        except Bad:
            self._replace()
            raise
        if isinstance(answer, str):
            raise Bad(answer)
        return answer[0]

    def _replace(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        self._process.kill()
        self._process.join(5.0)
        self._pipe.close()


def _serve(pipe: Connection) -> None:
    """Answer until the other end is gone: a tuple of one value, or the text of what is wrong."""
    for kind, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):  # fmt: skip
        with suppress(ValueError, OSError):  # a lower limit is set already
            resource.setrlimit(kind, (most, most))
    shards: OrderedDict[Path, Shard] = OrderedDict()
    with suppress(EOFError, OSError):
        while True:
            question, path, *words = pipe.recv()
            pipe.send(_answer(partial(_ANSWERS[question], shards, path, *words)))


def _answer(ask: Callable[[], Any]) -> tuple[Any] | str:
    try:
        return (ask(),)
    except Bad as bad:
        return str(bad)
    except MemoryError:
        return "too_large: it needs more memory than a decoder may have"
    except OSError as error:
        return f"unreadable: {error.strerror or type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - of dozens of kinds; the process is as sound as before
        return f"undecodable: {type(error).__name__}"


def _shard(shards: OrderedDict[Path, Shard], path: Path, table: Table | None) -> Shard:
    if path not in shards:
        shards[path] = opened(path, table)
        while len(shards) > _SHARDS_KEPT:
            shards.popitem(last=False)
    shards.move_to_end(path)
    return shards[path]


def _count(shards: OrderedDict[Path, Shard], path: Path, table: Table | None) -> tuple[int, bool]:
    shard = opened(path, table)
    return shard.count, shard.exact


def _read(shards: OrderedDict[Path, Shard], path: Path, table: Table | None, place: float) -> Any:
    return _shard(shards, path, table).read(place)


_ANSWERS: dict[str, Callable[..., Any]] = {"count": _count, "read": _read, "checksum": lambda _, path: checksum(path)}
