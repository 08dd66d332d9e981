"""Raw tool output kept beside the run, and tools answered from it again (``--replay``).

The evidence folder holds one file an output and ``tools.jsonl``, one JSON object a call: probe, name, argv,
returncode, seconds, stdout (file name), sha256, stderr (its tail), and ``error`` when the call did not end by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import why
from bench.measure import tools
from bench.measure.jsonl import record
from bench.measure.probe import Call, Completed, Failed, Interrupted, Skipped, TimedOut, Tools, Unsupported
from bench.measure.regular_files import read_regular
from bench.measure.tools import Signals
from bench.model import Code, Evidence

INDEX = "tools.jsonl"
_SECRET = re.compile(
    r"(?i)((?:token|secret|password|passwd|api[-_]?key|psk|hmac)[^=\s]*=)\S+|(?<=//)[^/@\s]+:[^/@\s]+(?=@)"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_BYTES = 256 << 20


def redact(word: str) -> str:
    """Arguments that look like secrets do not enter a record."""
    return _SECRET.sub(lambda match: (match[1] or "") + "***", word)


@dataclass(slots=True)
class Recorder:
    """Writes evidence. ``folder`` is made at the first record; paths in Evidence are relative to its parent."""

    folder: Path
    _evidence: dict[str, list[Evidence]] = field(default_factory=lambda: defaultdict(list))
    _number: int = 0

    def keep(self, probe: str, name: str, done: Completed, error: str | None = None, server: bool = False) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        suffix = "json" if done.stdout.lstrip().startswith(("{", "[")) else "txt"
        file = f"{self._number:04d}-{_UNSAFE.sub('_', probe)}-{_UNSAFE.sub('_', name)}.{suffix}"
        data = done.stdout.encode(errors="replace")
        (self.folder / file).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        self._evidence[probe].append(Evidence(path=f"{self.folder.name}/{file}", sha256=digest))
        entry = {
            "probe": probe, "name": name, "argv": [redact(word) for word in done.argv],
            "returncode": done.returncode, "seconds": round(done.seconds, 6), "stdout": file, "sha256": digest,
            "stderr": redact(done.stderr[-2000:]), "error": error, "server": server,
        }  # fmt: skip
        with (self.folder / INDEX).open("a", encoding="utf-8") as index:
            index.write(json.dumps(entry, ensure_ascii=True) + "\n")

    def evidence(self, probe: str) -> tuple[Evidence, ...]:
        return tuple(self._evidence[probe])


@dataclass(slots=True)
class LiveTools(Tools):
    """The tools of one probe: real processes, bounded by the probe's deadline (monotonic seconds), recorded."""

    probe: str
    recorder: Recorder | None
    deadline: float = float("inf")
    signals: Signals | None = None

    def require(self, tool: str) -> str:
        return tools.require(tool)

    def _bounded(self, timeout: float) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimedOut(Code.PROBE_TIMED_OUT, "no time is left for this probe")
        return min(timeout, left)

    def call(self, call: Call) -> Completed:
        try:
            done = tools.run(
                call.argv, timeout=self._bounded(call.timeout), signals=self.signals, stdin=call.stdin,
                env={**_environment(call.argv), **(call.env or {})}, on_line=call.on_line,
            )  # fmt: skip
        except (TimedOut, Failed, Interrupted) as error:
            if error.completed is not None:
                self._keep(call.name, error.completed, f"{type(error).__name__}: {error}")
            raise
        self._keep(call.name, done)
        return done

    @contextmanager
    def serve(self, argv: Sequence[str | Path], *, name: str, ready: str, timeout: float) -> Iterator[str]:
        started, words = time.monotonic(), tuple(map(str, argv))
        env = _environment(words)
        with tempfile.TemporaryFile() as output:
            try:
                with tools.serve(
                    argv, ready=ready, timeout=self._bounded(timeout), signals=self.signals, env=env, output=output
                ) as line:
                    yield line
            finally:
                text = os.pread(output.fileno(), 1 << 22, 0).decode(errors="replace")
                self._keep(name, Completed(words, 0, text, "", time.monotonic() - started), server=True)

    def record(self, name: str, text: str) -> str:
        self._keep(name, Completed((), 0, text, "", 0.0))
        return text

    def _keep(self, name: str, done: Completed, error: str | None = None, server: bool = False) -> None:
        if self.recorder is not None:
            self.recorder.keep(self.probe, name, done, error, server)

    def sleep(self, seconds: float) -> None:
        tools.pause(self._bounded(seconds), self.signals)
        self._bounded(0.0)


def _environment(argv: Sequence[str]) -> Mapping[str, str]:
    """What a Python module needs to be found, and nothing for other tools."""
    return tools.python_environment() if tuple(argv[1:2]) == ("-m",) else {}


@dataclass(frozen=True, slots=True)
class _Call:
    """A line of the index, as it is read again."""

    probe: str
    name: str
    stdout: str
    returncode: int
    argv: tuple[str, ...] = ()
    stderr: str = ""
    seconds: float = 0.0
    error: str | None = None


class Recording:
    """What an evidence folder holds, by probe and name, in order. Raises Failed, one line, when it cannot be used."""

    def __init__(self, folder: Path) -> None:
        self.folder, path = folder, folder / INDEX
        self._calls: dict[tuple[str, str], deque[_Call]] = defaultdict(deque)
        for number, line in enumerate(_content(path).splitlines(), 1):
            if (call := record(line, _Call)) is None:
                raise Failed(Code.REPLAY_UNUSABLE, f"{path}:{number}: not a recorded call")
            self._calls[call.probe, call.name].append(call)

    def next(self, probe: str, name: str) -> tuple[Completed, str | None]:
        if not (calls := self._calls[probe, name]):
            raise Skipped(Code.NOT_RECORDED, f"{self.folder.name} holds no further output {name!r} of this probe")
        call = calls.popleft()
        text = _content(self.folder / Path(call.stdout).name)
        return Completed(call.argv, call.returncode, text, call.stderr, call.seconds), call.error

    def holds(self, probe: str) -> bool:
        """Is there recorded output of that probe that was not yet replayed (besides a watcher's samples)?"""
        return any(calls for (owner, _), calls in self._calls.items() if owner == probe)


def _content(file: Path) -> str:
    """Raises Failed, one line."""
    try:
        return read_regular(file, _MOST_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError) as error:  # of values: no regular file, too large, or no file's name
        raise Failed(Code.REPLAY_UNUSABLE, f"{file}: {why(error)}; give the .raw folder of a stored run") from error


_ERRORS = {"TimedOut": TimedOut, "Failed": Failed, "Unsupported": Unsupported}


@dataclass(slots=True)
class ReplayTools(Tools):
    """The same tools, answered from a Recording. Nothing is started and nothing is waited for."""

    probe: str
    recording: Recording
    recorder: Recorder | None = None

    def require(self, tool: str) -> str:
        return tool

    def call(self, call: Call) -> Completed:
        done, error = self.recording.next(self.probe, call.name)
        if self.recorder is not None:
            self.recorder.keep(self.probe, call.name, done, error)
        if call.on_line is not None:
            for line in done.stdout.splitlines():
                call.on_line(line)
        if error:
            kind, _, reason = error.partition(": ")
            raised = _ERRORS.get(kind, Failed).told(reason or error)
            raised.completed = done
            raise raised
        return done

    @contextmanager
    def serve(self, argv: Sequence[str | Path], *, name: str, ready: str, timeout: float) -> Iterator[str]:
        done = self.run((), name=name, timeout=0)
        yield next((line for line in done.stdout.splitlines() if ready in line), "")

    def record(self, name: str, text: str) -> str:
        return self.run((), name=name, timeout=0).stdout

    def sleep(self, seconds: float) -> None:
        pass
