"""A cache of what the stored runs say, so that thousands of them are asked within a second.

SQLite in the XDG cache folder, one file for each results folder. The run files are the truth: before every use each
file's time, size and inode are compared with what was indexed, and what differs is read again. A cache that is torn,
of another version or not writable is made anew (in memory at worst); nothing is read from it that is not in a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.judge.baseline.comparison import epoch_of, telling
from bench.judge.baseline.series import Labels, StoredRun
from bench.model import Code, Run, code_of
from bench.store import documents
from bench.store.errors import UnusableRun, one_line

_VERSION = 3
_BUSY_SECONDS = 20.0


def cache_folder() -> Path:
    """``BENCH_CACHE``, else the XDG cache folder's own corner."""
    if given := os.environ.get("BENCH_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aiready-bench"


def cache_file(root: Path) -> Path:
    """The index of that results folder."""
    name = hashlib.sha256(os.path.realpath(root).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_folder() / f"index-{name}.sqlite"


class Index(AbstractContextManager["Index"]):
    """The stored runs below ``root``, up to date as of its making. ``warn`` gets one line for each file left out."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self._warn = warn
        self.db = self._opened(cache_file(root))

    def __exit__(self, *_: object) -> None:
        self.db.close()

    # --- being up to date

    def _opened(self, path: Path) -> sqlite3.Connection:
        """The cache, brought up to date; made anew when it is torn, in memory when there is no place for it."""
        for attempt in (path, path, None):
            try:
                db = self._connect(attempt)
            except (sqlite3.Error, OSError):
                continue
            try:
                self._update(db)
            except sqlite3.OperationalError:  # locked for long, no space: the cache of others stays as it is
                db.close()
                path = Path(os.devnull) / "none"
            except sqlite3.DatabaseError:  # torn
                db.close()
                _remove(path)
            else:
                return db
        db = self._connect(None)
        self._update(db)
        return db

    def _connect(self, path: Path | None) -> sqlite3.Connection:
        if path is not None:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        db = sqlite3.connect(path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None)
        # A killed process tears nothing (the journal); a power cut may, which costs a rebuild and no data.
        db.execute("PRAGMA synchronous=OFF")
        if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            self._create(db)
        return db

    @staticmethod
    def _create(db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:  # another process may have been quicker
            tables = db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
            drops = (f"DROP TABLE {table}" for (table,) in tables)
            for statement in (*drops, *TABLES.strip().split(";\n")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={_VERSION}")
        db.execute("COMMIT")

    def _update(self, db: sqlite3.Connection) -> None:
        found = dict(listed(self.root))
        if found == _indexed(db):
            return
        db.execute("BEGIN IMMEDIATE")
        with db:  # commits, or rolls back what an exception ends
            known = _indexed(db)
            forget(db, [path for path in known if found.get(path) != known[path]])
            writer = Writer(db)
            for path, stamp in sorted(found.items()):
                if known.get(path) != stamp:
                    writer.add(path, stamp, self._load(path))
            writer.flush()

    def _load(self, path: str) -> Run | None:
        try:
            return documents.load(self.root / "runs" / path, follow=False)
        except UnusableRun as error:
            self._warn(one_line(f"left out: {error}"))
            return None

    # --- being asked

    def hosts(self) -> list[str]:
        """Every node with a stored run, by name."""
        return [host for (host,) in self.db.execute("SELECT DISTINCT host FROM runs ORDER BY host")]

    def newest(self, host: str) -> tuple[str, float, str] | None:
        """That node's newest own run, confirmations apart: its id, start and path below ``runs/``; None without one."""
        own = "SELECT id, at, path FROM runs WHERE host=? AND sound=1 AND confirms IS NULL"
        found: tuple[str, float, str] | None = self._one(f"{own} ORDER BY at DESC, path DESC LIMIT 1", host)
        return found

    def runs(self, host: str, epoch: str, since: float, until: float, limit: int) -> list[StoredRun]:
        """The newest ``limit`` runs of a node in an epoch with ``since`` < start <= ``until``, oldest first."""
        query = (
            "SELECT id, at, sound, confirms, decisions FROM runs WHERE host=? AND epoch=? AND at>? AND at<=? "
            "ORDER BY at DESC, path DESC LIMIT ?"
        )
        rows = self.db.execute(query, (host, epoch, since, until, limit)).fetchall()
        return [
            StoredRun(run, at, bool(sound), confirms, tuple(map(tuple, json.loads(decisions))))
            for run, at, sound, confirms, decisions in reversed(rows)
        ]

    def values(self, metric: str, labels: Labels, host: str, runs: Iterable[str]) -> dict[str, float]:
        """Run id -> that series' value, of the named runs of the node that have a valid one."""
        series = self._series(metric, labels)
        if series is None:
            return {}
        query = (
            "SELECT points.value FROM runs CROSS JOIN points ON points.series=? AND points.run=runs.number "
            "WHERE runs.id=? AND runs.host=? AND points.invalid IS NULL"
        )
        found = ((run, self._one(query, series, run, host)) for run in runs)
        return {run: row[0] for run, row in found if row is not None}

    def recent(self, metric: str, labels: Labels, host: str, like: str, limit: int) -> list[float]:
        """The newest ``limit`` valid values of a series on a node, oldest first: of the epoch of its newest run that
        ends with ``like`` (the effort and accelerator), sound runs only."""
        series = self._series(metric, labels)
        newest = "SELECT epoch FROM runs WHERE host=? AND sound=1 AND epoch LIKE ? ORDER BY at DESC LIMIT 1"
        epoch = self._one(newest, host, f"% {like}")
        if series is None or epoch is None:
            return []
        query = (
            "SELECT points.value FROM runs CROSS JOIN points ON points.series=? AND points.run=runs.number "
            "WHERE runs.host=? AND runs.epoch=? AND runs.sound=1 AND runs.confirms IS NULL "
            "AND points.invalid IS NULL ORDER BY runs.at DESC LIMIT ?"
        )
        return [value for (value,) in self.db.execute(query, (series, host, epoch[0], limit))][::-1]

    def epoch_before(self, host: str, epoch: str, at: float) -> tuple[str, str, float] | None:
        """The (fingerprint, epoch, start) of the node's newest sound run before ``at`` in another epoch, or None."""
        other = "SELECT fingerprint, epoch, at FROM runs WHERE host=? AND epoch<>? AND at<? AND sound=1"
        found: tuple[str, str, float] | None = self._one(f"{other} ORDER BY at DESC LIMIT 1", host, epoch, at)
        return found

    def known_before(self, host: str, epoch: str, at: float) -> bool:
        """Did the node have a sound run of that epoch before ``at``?"""
        query = "SELECT 1 FROM runs WHERE host=? AND epoch=? AND at<? AND sound=1 LIMIT 1"
        return self._one(query, host, epoch, at) is not None

    def facts(self, fingerprint: str) -> dict[str, object]:
        """The facts that explain a fingerprint; empty where its run had none."""
        row = self._one("SELECT facts FROM facts WHERE fingerprint=?", fingerprint)
        return json.loads(row[0]) if row else {}

    def _series(self, metric: str, labels: Labels) -> int | None:
        row = self._one("SELECT number FROM series WHERE metric=? AND labels=?", metric, labels_text(labels))
        return row[0] if row else None

    def _one(self, query: str, *given: object) -> Any:
        return self.db.execute(query, given).fetchone()


def _indexed(db: sqlite3.Connection) -> dict[str, Stamp]:
    return {path: (m, s, i) for path, m, s, i in db.execute("SELECT path, mtime, size, inode FROM files")}


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink()


TABLES = """
CREATE TABLE files (path TEXT PRIMARY KEY, mtime INTEGER, size INTEGER, inode INTEGER, run INTEGER) WITHOUT ROWID;
CREATE TABLE runs (number INTEGER PRIMARY KEY, path TEXT, id TEXT, host TEXT, at REAL, epoch TEXT, fingerprint TEXT,
                   effort TEXT, sound INTEGER, confirms TEXT, decisions TEXT);
CREATE INDEX runs_of_host ON runs (host, epoch, at);
CREATE INDEX runs_by_id ON runs (id);
CREATE TABLE series (number INTEGER PRIMARY KEY, metric TEXT, labels TEXT, UNIQUE (metric, labels));
CREATE TABLE points (series INTEGER, run INTEGER, value REAL, low REAL, high REAL, invalid TEXT,
                     PRIMARY KEY (series, run)) WITHOUT ROWID;
CREATE TABLE facts (fingerprint TEXT PRIMARY KEY, facts TEXT) WITHOUT ROWID;
"""

#: A file's time of change (ns), size and inode: while they stand, its content does.
Stamp = tuple[int, int, int]


def labels_text(labels: Labels) -> str:
    """Labels as they stand in the index: compact JSON, sorted."""
    return json.dumps(dict(labels), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def seconds_of(started_at: str) -> float:
    """RFC 3339 to seconds since 1970. Raises ValueError."""
    start = datetime.fromisoformat(started_at)
    return (start.replace(tzinfo=UTC) if start.tzinfo is None else start).timestamp()


def is_sound(run: Run) -> bool:
    """Measured to its end, on this node: no replay, not interrupted."""
    interrupted = any(code_of(result.reason) is Code.INTERRUPTED for result in run.results)
    return not (run.replay_of or run.interrupted_by is not None or run.finished_at is None or interrupted)


def listed(root: Path) -> Iterator[tuple[str, Stamp]]:
    """Every run file as ``host/name`` with its time, size and inode; nothing hidden, nothing behind a link."""
    with suppress(OSError), os.scandir(root / "runs") as folders:
        shown = (one for one in folders if not one.name.startswith(".") and one.is_dir(follow_symlinks=False))
        for folder in shown:
            with suppress(OSError), os.scandir(folder.path) as files:
                for file in files:
                    if file.name.endswith(".json") and not file.name.startswith("."):
                        found = file.stat(follow_symlinks=False)
                        yield f"{folder.name}/{file.name}", (found.st_mtime_ns, found.st_size, found.st_ino)


def forget(db: sqlite3.Connection, paths: Sequence[str]) -> None:
    for path in paths:
        row = db.execute("SELECT run FROM files WHERE path=?", (path,)).fetchone()
        db.execute("DELETE FROM files WHERE path=?", (path,))
        if row and row[0] is not None:
            for (series,) in db.execute("SELECT number FROM series").fetchall():
                db.execute("DELETE FROM points WHERE series=? AND run=?", (series, row[0]))
            db.execute("DELETE FROM runs WHERE number=?", (row[0],))


class Writer:
    """Rows on their way into the index, many at a time."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._series: dict[tuple[str, str], int] = {
            (m, t): n for n, m, t in db.execute("SELECT number, metric, labels FROM series")
        }
        self._met: dict[tuple[str, Labels], int] = {}  # the same, by labels as they came: making their text is slow
        self._next: int = db.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM runs").fetchone()[0]
        self._points: list[tuple[object, ...]] = []

    def add(self, path: str, stamp: Stamp, run: Run | None) -> None:
        """A file that holds no usable run is remembered too, so that it is read and told of once."""
        number = None
        if run is not None:
            with suppress(ValueError):
                number = self._add_run(path, run, seconds_of(run.started_at))
        self._db.execute("INSERT INTO files VALUES (?,?,?,?,?)", (path, *stamp, number))
        if len(self._points) > 50_000:
            self.flush()

    def _add_run(self, path: str, run: Run, at: float) -> int:
        number = self._next
        self._next += 1
        node, epoch = run.node, epoch_of(run.node, run.request)
        verdicts = json.dumps([(v.profile, v.digest, v.decision.value) for v in run.verdicts])
        row = (
            *(number, path, run.id, node.hostname, at, epoch, node.fingerprint, run.request.effort.value),
            *(is_sound(run), run.confirms, verdicts),
        )
        self._db.execute(f"INSERT INTO runs VALUES ({','.join('?' * len(row))})", row)
        facts = json.dumps(telling(node.facts))
        self._db.execute("INSERT OR IGNORE INTO facts VALUES (?,?)", (node.fingerprint, facts))
        for m in run.measurements():
            series = self._number(m.metric, tuple(m.labels.items()))
            self._points.append((series, number, m.value, *m.interval, m.invalid))
        return number

    def _number(self, metric: str, labels: Labels) -> int:
        if (metric, labels) not in self._met:
            key = metric, labels_text(labels)
            if key not in self._series:
                self._series[key] = len(self._series) + 1
                self._db.execute("INSERT INTO series VALUES (?,?,?)", (self._series[key], *key))
            self._met[metric, labels] = self._series[key]
        return self._met[metric, labels]

    def flush(self) -> None:
        self._points.sort(key=lambda row: (row[0], row[1]))  # in the order of the tree: pages are filled, not split
        self._db.executemany("INSERT OR REPLACE INTO points VALUES (?,?,?,?,?,?)", self._points)
        self._points.clear()
