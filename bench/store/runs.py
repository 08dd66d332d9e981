"""The folder of stored runs of one or many nodes: ``ROOT/runs/<hostname>/<start>-<id>.json``.

A run is saved before it is judged, so that a fault in judgement loses nothing, and is completed once, with what was
concluded from it. Nothing else ever changes a stored run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError

from bench.errors import note, why
from bench.model import Run
from bench.store import atomic, documents
from bench.store.errors import StoreError, UnusableRun, one_line
from bench.store.evidence import is_run_name

_CONCLUSIONS = ("attribution", "verdicts")
#: A run of the standard effort takes 30 to 100 kB; a folder that takes this takes the run.
_CHECK_BYTES = 256 << 10
#: Clocks differ by less. What is dated later than now by more was dated by a clock that is wrong.
AHEAD_SECONDS = 300.0


class Store:
    """The stored runs under ``root``. ``warn`` gets one line for each file that is left out."""

    def __init__(self, root: Path, warn: atomic.Warn = note) -> None:
        self.root = root
        self._warn = warn

    @staticmethod
    def new_id() -> str:
        """An id for a new run: twelve hex digits. Among a million runs two collide with a chance below 0.2 %, and then
        only matter if they also began in the same second on the same host.
        """
        return secrets.token_hex(6)

    def folder(self, hostname: str) -> Path:
        """Where the runs of that node lie."""
        return self.root / "runs" / folder_name(hostname)

    def path_for(self, run: Run) -> Path:
        """Where that run lies or will lie. Raises StoreError if its start is not a time."""
        return self._place(run.node.hostname, run.started_at, run.id, ".json")

    def evidence_folder(self, hostname: str, started_at: str, run_id: str) -> Path:
        """The folder, made if need be, for the raw tool output of a run that is about to be measured.

        Evidence paths in the run are relative to its parent: ``<stem>.raw/<file>``. Raises StoreError.
        """
        folder = self._place(hostname, started_at, run_id, ".raw")
        atomic.make_folder(folder)
        return folder

    def check(self, hostname: str) -> None:
        """Raises StoreError now, before minutes of measuring, if a run could not be stored. Sweeps old temps too."""
        folder = self.folder(hostname)
        atomic.make_folder(folder)
        atomic.try_out(folder, _CHECK_BYTES)
        atomic.sweep(folder)

    def save(self, run: Run) -> Path:
        """Store the run; never replaces one. Raises StoreError, and then nothing of it is visible."""
        data = _encode(document(run))
        path = self.path_for(run)
        atomic.make_folder(path.parent)
        atomic.sweep(path.parent)
        return atomic.publish(path.parent, path.name, data, self._warn)

    def complete(self, run: Run) -> Path:
        """Add attribution and verdicts to the stored run, once, atomically.

        Raises StoreError when anything else differs from what is stored or when it is completed already; UnusableRun
        when the stored file cannot be read.
        """
        path, wanted = self.path_for(run), document(run)
        data = _encode(wanted)
        with atomic.opened(path.parent, alone=True) as fd:
            stored = document(documents.load(path, follow=False))
            if stored["verdicts"] or stored["attribution"]:
                raise StoreError(f"{path}: is completed already; judge it again with: bench gate {run.id}")
            changed = [key for key in wanted if key not in _CONCLUSIONS and wanted[key] != stored[key]]
            if changed:
                raise StoreError(f"{path}: {', '.join(changed)} would change; a stored run is never edited")
            atomic.replace(path.parent, fd, path.name, data, self._warn)
        return path

    def newest(self, hostname: str) -> Run | None:
        """That node's newest own run. Replays, other nodes' runs and unusable files are left out, with a warning; and
        what a clock that was ahead dated in the future, once another was stored after it: it would stay the newest.
        """
        now = f"{datetime.now(UTC) + timedelta(seconds=AHEAD_SECONDS):%Y%m%dT%H%M%SZ}"
        paths = self._paths(hostname)
        ahead = [path for path in paths if path.name[:1].isdigit() and path.name > now]
        best = self._newest([path for path in paths if path not in ahead], hostname)
        late = self._newest(ahead, hostname)
        if not late or not best:
            only = best or late
            return only[0] if only else None
        if late[1].stat().st_mtime_ns >= best[1].stat().st_mtime_ns:
            return late[0]
        self._warn(one_line(f"left out: {late[1]}: is dated in the future; check the node's clock"))
        return best[0]

    def _newest(self, paths: Sequence[Path], hostname: str) -> tuple[Run, Path] | None:
        best: tuple[Run, Path] | None = None
        for path in reversed(paths):
            if best and path.name.partition("-")[0] != best[1].name.partition("-")[0]:
                break  # names sort by the second; within one second the run itself says which is newer
            run = self._usable(path, hostname)
            if run and (best is None or run.started_at > best[0].started_at):
                best = run, path
        return best

    def all(self, hostname: str | None = None) -> Iterator[tuple[Path, Run]]:
        """Every stored run with its file, oldest first, replays too. Unusable files are left out, with a warning."""
        for path in self._paths(hostname):
            if run := self._load_or_warn(path):
                yield path, run

    def find(self, reference: str) -> Run:
        """The run at that path, or with that id or file name, or the only one whose id or file name begins so.

        Raises UnusableRun, with the nearest names if there is none.
        """
        return documents.load(self.locate(reference))

    def locate(self, reference: str) -> Path:
        """The file that ``find`` reads: for what lies beside it. Raises UnusableRun."""
        with suppress(OSError, ValueError):  # too long or not a file name: then perhaps an id
            if os.path.lexists(reference) and not Path(reference).is_dir():
                return Path(reference)
        paths = self._paths(None)
        wanted = Path(reference).name.removesuffix(".json")
        exact = [p for p in paths if wanted and (p.stem == wanted or id_part(p.stem) == short_id(wanted))]
        begins = [p for p in paths if wanted and (p.stem.startswith(wanted) or id_part(p.stem).startswith(wanted))]
        found = exact or begins
        if len(found) != 1:
            raise UnusableRun(self._none_or_many(reference, found, paths))
        return found[0]

    def _place(self, hostname: str, started_at: str, run_id: str, suffix: str) -> Path:
        try:
            return self.folder(hostname) / (stem(started_at, run_id) + suffix)
        except ValueError as error:
            raise StoreError(f"run {run_id}: {error}") from error

    def _paths(self, hostname: str | None) -> list[Path]:
        """The run files, oldest first; nothing behind a link, nothing hidden."""
        folders = self._names(self.root / "runs") if hostname is None else [self.folder(hostname)]
        real = [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]
        found = [path for folder in real for path in self._names(folder) if is_run_name(path.name)]
        return sorted(found, key=lambda path: path.name)

    def _names(self, folder: Path) -> list[Path]:
        try:
            return [path for path in folder.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            self._warn(one_line(f"left out: {folder}: cannot be listed: {why(error)}"))
            return []

    def _load_or_warn(self, path: Path) -> Run | None:
        try:
            return documents.load(path, follow=False)
        except UnusableRun as error:
            self._warn(f"left out: {error}")
            return None

    def _usable(self, path: Path, hostname: str) -> Run | None:
        run = self._load_or_warn(path)
        if run is None or (run.node.hostname == hostname and not run.replay_of):
            return run
        why_not = f"was measured on {run.node.hostname}, not on {hostname}"
        if run.replay_of:
            why_not = f"is a replay of {run.replay_of}, not a measurement of this node"
        self._warn(one_line(f"left out: {path}: {why_not}"))
        return None

    def _none_or_many(self, reference: str, found: list[Path], paths: list[Path]) -> str:
        if found:
            shown = ", ".join(p.stem for p in found[-3:])
            return one_line(f"{reference}: names {len(found)} runs ({shown}, ...); give more of the name")
        if not paths:
            none = f"no such run file, and no run is stored in {self.root}"
            return one_line(f"{reference}: {none}; measure with: bench run")
        names = [name for p in paths for name in (p.stem, id_part(p.stem))]
        near = difflib.get_close_matches(reference, names, n=3, cutoff=0.5) or [p.stem for p in paths[-3:]]
        return one_line(f"{reference}: no such run file, and no such run in {self.root}; nearest: {', '.join(near)}")


def document(run: Run) -> dict[str, Any]:
    """The run as it is stored and printed: plain JSON values, aliases, no NaN. Raises StoreError."""
    try:
        found: dict[str, Any] = _storable(run.model_dump(mode="json", by_alias=True))
    except (PydanticSerializationError, RecursionError, UnicodeError) as error:
        raise StoreError(f"run {run.id}: cannot be written as JSON: {error}") from error
    return found


def _storable(value: Any) -> Any:
    """Facts and options are free-form: there a number that is not finite becomes null (not known), and a lone surrogate
    (a file name that is not UTF-8) the replacement character, rather than the whole run being lost.
    """
    if isinstance(value, dict):
        return {_storable(key): _storable(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_storable(child) for child in value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encode(found: dict[str, Any]) -> bytes:
    """The bytes of the file. Nothing is ever written that ``load`` would refuse: that is tried first."""
    data = json.dumps(found, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    if len(data) > documents.MAX_BYTES:
        limit = documents.MAX_BYTES >> 20
        raise StoreError(f"run {found['id']}: its document is larger than {limit} MiB; run fewer probes at a time")
    try:
        documents.parse(data)
    except UnusableRun as error:
        raise StoreError(f"run {found['id']}: is not a valid run: {error}") from error
    return data


_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_FOLDER = 100
_LONGEST_ID = 32


def folder_name(hostname: str) -> str:
    """A host name as one folder name: letters, digits, ``.``, ``_`` and ``-``, no leading dot, at most 100 characters.

    An ordinary host name is kept as it is. One that had to be changed ends with a digest of the original, so that two
    different hosts never share a folder.
    """
    safe = _UNSAFE.sub("_", hostname).lstrip(".-")[:_LONGEST_FOLDER]
    if safe == hostname:
        return safe
    return f"{safe[: _LONGEST_FOLDER - 9] or 'host'}-{_digest(hostname)}"


def stem(started_at: str, run_id: str) -> str:
    """The file name without ``.json``; sorts by start. Raises ValueError if ``started_at`` is not RFC 3339."""
    try:
        start = datetime.fromisoformat(started_at)
        utc = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"started_at is not an RFC 3339 time: {started_at[:60]!r}") from error
    basic = utc.replace(tzinfo=None).isoformat(timespec="seconds").replace("-", "").replace(":", "")
    return f"{basic}Z-{short_id(run_id)}"


def short_id(run_id: str) -> str:
    """The id itself, or for a long one (another program's) its beginning and a digest of the whole."""
    return run_id if len(run_id) <= _LONGEST_ID else f"{run_id[: _LONGEST_ID - 9]}-{_digest(run_id)}"


def id_part(stem_: str) -> str:
    """The short id at the end of a stem; empty when the name is not of our form."""
    return stem_.partition("-")[2]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
