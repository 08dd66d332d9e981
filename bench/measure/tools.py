"""The only way to processes: start, bound, watch, end the whole tree.

Every child has an argument list (never a shell), its own session, no standard input but what is given, an environment
of allowed names, and dies with us: ``setpriv --pdeathsig KILL`` covers even our own ``kill -9``. Only the main thread
may start children, because the kernel ties that death signal to the thread that forked.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from bench.measure.probe import Completed, Failed, Interrupted, TimedOut, Unsupported
from bench.measure.processes import descendants, end_all, session_members
from bench.model import Code

MAX_OUTPUT_BYTES = 64 << 20
STDERR_TAIL_BYTES = 16 << 10
_POLL_SECONDS = 0.2
_ENV_NAMES = frozenset(
    "PATH HOME USER LOGNAME TMPDIR LANG LD_LIBRARY_PATH VIRTUAL_ENV XDG_RUNTIME_DIR PYTHONPATH OMP_NUM_THREADS".split()
)
_ENV_PREFIXES = ("BENCH_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "UCX_", "ROCR_", "HIP_")
#: prctl(PR_SET_PDEATHSIG, SIGKILL), then the program itself.
_DIE_WITH_PARENT = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1,9,0,0,0); os.execv(sys.argv[1],sys.argv[1:])"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Where the package is not called like the tool.
_PACKAGES = {"ip": "iproute2", "setpriv": "util-linux", "ib_write_bw": "perftest", "ib_write_lat": "perftest",
             "ssh-keygen": "openssh-client"}  # fmt: skip


class Signals:
    """A context manager that notes the first signal; ``check`` raises Interrupted once one was noted.

    An exception out of a signal handler can strike between starting a process and knowing its id. The handler only
    notes the signal; every wait of the product is short or looks at the note, and the exception is raised there.
    It can be entered again while it is held: the outermost ``with`` decides how long signals are noted.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._depth = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for sig in _SIGNALS:
                self._previous[sig] = signal.signal(sig, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            for sig, handler in self._previous.items():
                signal.signal(sig, handler)
            self._previous.clear()

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self.caught = self.caught or signum

    def check(self) -> None:
        if self.caught is not None:
            raise Interrupted(self.caught)


def install_command(tool: str) -> str:
    """The command that installs ``tool`` with this system's package manager."""
    package = _PACKAGES.get(tool, tool)
    for manager, command in (("apt-get", "apt-get install -y"), ("dnf", "dnf install -y"), ("zypper", "zypper in -y")):
        if shutil.which(manager):
            return f"sudo {command} {package}" if os.geteuid() else f"{command} {package}"
    return f"install the package {package}"


def require(tool: str) -> str:
    """The absolute path of an executable. Raises Unsupported with the command that installs it."""
    path = shutil.which(tool) or _carried(tool)
    if path is None:
        raise Unsupported(Code.TOOL_MISSING, f"{tool} is not installed", install_command(tool))
    return path


def _carried(tool: str) -> str | None:
    """The one that a bundle brought along (tools/bundle), with its own libraries and loader; a zip keeps no modes."""
    path = Path(__file__).with_name("carried") / tool
    if not path.is_file():
        return None
    for file in (path, *path.parent.glob("lib/ld-*"), path.parent / "lib" / tool):
        with suppress(OSError):  # another user unpacked it, and made it so
            file.chmod(0o755)
    return str(path) if os.access(path, os.X_OK) else None


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child may see: names that tools need, nothing that could be a secret."""
    kept = {k: v for k, v in os.environ.items() if k in _ENV_NAMES or _is_setting(k)}
    return {**kept, "LC_ALL": "C.UTF-8", **(extra or {})}


def _is_setting(name: str) -> bool:
    return name.startswith(_ENV_PREFIXES) and not name.endswith("_KEY")


def python_environment() -> dict[str, str]:
    """So that ``-m bench...`` and ``-m probes...`` are found from any working directory, unbuffered.

    CUDA numbers the cards as NVML does, so that a number means one card everywhere.
    """
    root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = f"{root}{os.pathsep}{inherited}" if inherited else root
    return {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def spawn(
    argv: Sequence[str | Path],
    *,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that dies with us. Raises Unsupported if it does not exist, Failed if it cannot be started."""
    words = [str(word) for word in argv]
    words[0] = require(words[0])
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else [sys.executable, "-S", "-E", "-c", _DIE_WITH_PARENT]
    try:
        return subprocess.Popen(
            [*guard, *words],
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            env=environment(env),
        )
    except (OSError, ValueError) as error:
        raise Failed(Code.TOOL_FAILED, f"{words[0]} could not be started: {error}") from error


def end(process: subprocess.Popen[bytes]) -> list[int]:
    """End the tree below ``process`` and what it left in its session; returns the ids of those that cannot be ended."""
    left = end_all([process.pid, *descendants(process.pid)]) if process.poll() is None else []
    left += end_all(p for p in session_members(process.pid) if p not in left)
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.1 if left else 5.0)
    return left


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    signals: Signals | None = None,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run a program to its end, with both outputs kept. The tree is ended on every way out.

    Raises Unsupported (not installed), TimedOut, Failed (too much output), Interrupted. The exceptions carry what was
    printed until then as ``.completed``, so that it can be kept as evidence.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() if stdin is not None else nullcontext() as feed:
        if stdin is not None and feed is not None:
            feed.write(stdin.encode())
            feed.seek(0)
        process = spawn(argv, stdin=feed, env=env)
    reader = _Reader(process, on_line)
    error: TimedOut | Failed | Interrupted | None = None
    try:
        reader.read_until_end(started + timeout, signals)
        process.wait(max(0.1, started + timeout - time.monotonic()))
    except (TimedOut, subprocess.TimeoutExpired):
        error = TimedOut(Code.TOOL_TIMED_OUT, f"{Path(argv[0]).name} did not end within {timeout:.0f} s")
    except (Failed, Interrupted) as caught:
        error = caught
    finally:
        end(process)
        reader.close()
    code = process.returncode if process.returncode is not None else -9
    words, seconds = tuple(str(word) for word in argv), time.monotonic() - started
    out, tail = reader.out.decode(errors="replace"), reader.err[-STDERR_TAIL_BYTES:].decode(errors="replace")
    done = Completed(words, code, out, tail, seconds)
    if error is not None:
        error.completed = done
        raise error
    return done


class _Reader:
    """Both pipes of a child, read as they fill; complete lines of standard output are passed on at once."""

    def __init__(self, process: subprocess.Popen[bytes], on_line: Callable[[str], None] | None) -> None:
        assert process.stdout is not None and process.stderr is not None
        self._process = process
        self._on_line = on_line
        self.out, self.err = bytearray(), bytearray()
        self._passed = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(process.stdout, selectors.EVENT_READ, self.out)
        self._selector.register(process.stderr, selectors.EVENT_READ, self.err)

    def read_until_end(self, deadline: float, signals: Signals | None) -> None:
        while self._selector.get_map():
            if signals is not None:
                signals.check()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(Code.TOOL_TIMED_OUT, "its time is up")
            for key, _ in self._selector.select(min(left, _POLL_SECONDS)):
                self._take(key)
            if self._process.poll() is not None and not self._selector.select(0):
                return  # A grandchild may hold the pipe open; the tool itself has ended and all it wrote is here.

    def _take(self, key: selectors.SelectorKey) -> None:
        chunk = os.read(key.fd, 1 << 16)
        if not chunk:
            self._selector.unregister(key.fileobj)
            return
        key.data.extend(chunk)
        if len(key.data) > MAX_OUTPUT_BYTES:
            raise Failed(Code.TOOL_OUTPUT, f"more than {MAX_OUTPUT_BYTES >> 20} MiB of output")
        while self._on_line is not None and (newline := self.out.find(b"\n", self._passed)) >= 0:
            line = self.out[self._passed : newline].decode(errors="replace")
            self._passed = newline + 1
            self._on_line(line)

    def close(self) -> None:
        self._selector.close()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def serve(
    argv: Sequence[str | Path],
    *,
    ready: str,
    timeout: float,
    signals: Signals | None = None,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> Iterator[str]:
    """A server for as long as the ``with`` lasts; yields the first line of its output that contains ``ready``.

    Raises Failed when it ends before that, TimedOut when it is not ready in time.
    """
    with tempfile.TemporaryFile() as own:
        file = output or own
        process = spawn(argv, stdout=file, stderr=subprocess.STDOUT, env=env)
        try:
            yield _wait_ready(process, file, ready, time.monotonic() + timeout, signals)
        finally:
            end(process)


def _wait_ready(
    process: subprocess.Popen[bytes], file: IO[bytes], ready: str, deadline: float, signals: Signals | None
) -> str:
    while True:
        ended = process.poll() is not None
        text = os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")
        line = next((line for line in text.splitlines() if ready in line), None)
        if line is not None:
            return line
        if ended:
            raise Failed(Code.SERVER_FAILED, f"ended with status {process.returncode}: {text.strip()[-300:]}")
        if time.monotonic() >= deadline:
            raise TimedOut(Code.SERVER_TIMED_OUT, f"it never said {ready!r}")
        pause(0.05, signals)


def pause(seconds: float, signals: Signals | None = None) -> None:
    """Sleep in short steps, so that a signal is seen."""
    end_at = time.monotonic() + seconds
    while (left := end_at - time.monotonic()) > 0:
        if signals is not None:
            signals.check()
        time.sleep(min(left, _POLL_SECONDS))
