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
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.judge.baseline.epoch import Circumstances, Labels, epoch_of, kept
from bench.judge.baseline.series import StoredRun
from bench.model import Code, Request, Run, code_of
from bench.store import documents
from bench.store.errors import UnusableRun, one_line
from bench.store.evidence import is_run_name
from bench.store.home import own_folder
from bench.store.runs import AHEAD_SECONDS

_VERSION = 4
_BUSY_SECONDS = 20.0


def cache_folder() -> Path | None:
    """``BENCH_CACHE``, else the XDG cache folder's own corner; None for a user without a home."""
    if given := os.environ.get("BENCH_CACHE"):
        return Path(given)
    own = own_folder("XDG_CACHE_HOME", ".cache")
    return own and own / "aiready-bench"


def cache_file(root: Path) -> Path | None:
    """The index of that results folder; None where there is no place for it."""
    name = hashlib.sha256(os.path.realpath(root).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder = cache_folder()
    return folder and folder / f"index-{name}.sqlite"


class Index(AbstractContextManager["Index"]):
    """The stored runs below ``root``, up to date as of its making. ``warn`` gets one line for each file left out."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self._warn = warn
        self._series: dict[str, list[tuple[int, dict[str, str]]]] = {}
        self._circumstances: dict[int, Circumstances] = {}
        self.db = self._opened(cache_file(root))

    def __exit__(self, *_: object) -> None:
        self.db.close()

    # --- being up to date

    def _opened(self, path: Path | None) -> sqlite3.Connection:
        """The cache, brought up to date; made anew when it is torn, in memory when there is no place for it."""
        for attempt in filter(None, (path, path)):
            try:
                db = self._connect(attempt)
            except (sqlite3.Error, OSError):
                continue
            try:
                self._update(db)
                return db
            except sqlite3.OperationalError:  # locked for long, no space: the cache of others stays as it is
                db.close()
            except sqlite3.DatabaseError:  # torn
                db.close()
                _remove(attempt)
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
        """That node's newest own run, confirmations apart: its id, start and path below ``runs/``; None without one.

        One that is dated in the future counts until another is stored after it, as for `bench.store.runs.Store.newest`.
        """
        own = "FROM runs JOIN files USING (path) WHERE host=? AND sound=1 AND confirms IS NULL AND at"
        newest = f"SELECT id, at, path, mtime {own} %s ? ORDER BY at DESC, path DESC LIMIT 1"
        now = time.time() + AHEAD_SECONDS
        past, ahead = (self._one(newest % side, host, now) for side in ("<=", ">"))
        found = ahead if ahead and (past is None or ahead[3] >= past[3]) else past
        return (found[0], found[1], found[2]) if found else None

    def runs(self, host: str, since: float, until: float, limit: int) -> list[StoredRun]:
        """The newest ``limit`` runs of a node with ``since`` < start <= ``until``, oldest first; of copies one."""
        query = (
            "SELECT id, at, sound, confirms, decisions, within FROM runs WHERE host=? AND at>? AND at<=? "
            "ORDER BY at DESC, path DESC LIMIT ?"
        )
        rows = self.db.execute(query, (host, since, until, limit)).fetchall()
        found = {
            run: StoredRun(
                run, at, bool(sound), confirms, tuple(map(tuple, json.loads(decisions))), self._within(within)
            )
            for run, at, sound, confirms, decisions, within in reversed(rows)
        }
        return list(found.values())

    def series(self, metric: str) -> list[tuple[int, dict[str, str]]]:
        """Every series of a metric in the index, with all labels that its figures had: (number, labels)."""
        if metric not in self._series:
            rows = self.db.execute("SELECT number, labels FROM series WHERE metric=?", (metric,))
            self._series[metric] = [(number, json.loads(labels)) for number, labels in rows]
        return self._series[metric]

    def values(self, series: int, host: str, since: float, until: float) -> list[tuple[str, float, bool]]:
        """(run id, value, valid) of a series on a node, of its runs with ``since`` <= start <= ``until``."""
        query = (
            "SELECT runs.id, points.value, points.invalid IS NULL FROM runs "
            "CROSS JOIN points ON points.series=? AND points.run=runs.number WHERE host=? AND at>=? AND at<=?"
        )
        found = self.db.execute(query, (series, host, since, until))
        return [(run, value, bool(valid)) for run, value, valid in found]

    def named(self, host: str, runs: Iterable[str]) -> list[StoredRun]:
        """Those of the named runs that the node has, oldest first."""
        query = "SELECT at, within FROM runs WHERE id=? AND host=?"
        found = ((run, self._one(query, run, host)) for run in runs)
        made = [StoredRun(run, row[0], within=self._within(row[1])) for run, row in found if row is not None]
        return sorted(made, key=lambda run: run.at)

    def _within(self, number: int) -> Circumstances:
        """One object for each kind of circumstances."""
        if number not in self._circumstances:
            facts, request = self._one("SELECT facts, request FROM circumstances WHERE number=?", number)
            self._circumstances[number] = Circumstances(json.loads(facts), Request.model_validate_json(request))
        return self._circumstances[number]

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
CREATE TABLE runs (number INTEGER PRIMARY KEY, path TEXT, id TEXT, host TEXT, at REAL, epoch TEXT, within INTEGER,
                   sound INTEGER, confirms TEXT, decisions TEXT);
CREATE INDEX runs_of_host ON runs (host, at);
CREATE INDEX runs_by_id ON runs (id);
CREATE TABLE series (number INTEGER PRIMARY KEY, metric TEXT, labels TEXT, UNIQUE (metric, labels));
CREATE TABLE points (series INTEGER, run INTEGER, value REAL, low REAL, high REAL, invalid TEXT,
                     PRIMARY KEY (series, run)) WITHOUT ROWID;
CREATE TABLE circumstances (number INTEGER PRIMARY KEY, facts TEXT, request TEXT, UNIQUE (facts, request));
"""

#: A file's time of change (ns), size and inode: while they stand, its content does.
Stamp = tuple[int, int, int]


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
                    if is_run_name(file.name):
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
        host, epoch = run.node.hostname, epoch_of(run.node, run.request)
        verdicts = json.dumps([(v.profile, v.digest, v.decision.value) for v in run.verdicts])
        row = (number, path, run.id, host, at, epoch, self._within(run), is_sound(run), run.confirms, verdicts)
        self._db.execute(f"INSERT INTO runs VALUES ({','.join('?' * len(row))})", row)
        for m in run.measurements():
            series = self._number(m.metric, tuple(m.labels.items()))
            self._points.append((series, number, m.value, *m.interval, m.invalid))
        return number

    def _within(self, run: Run) -> int:
        """The number of what the run was made under; what a run is made for (to confirm another) is no part of it."""
        options = {name: value for name, value in run.request.options.items() if name != "confirms"}
        request = run.request.model_copy(update={"options": options}).model_dump_json()
        said = json.dumps(kept(run.node), sort_keys=True), request
        self._db.execute("INSERT OR IGNORE INTO circumstances (facts, request) VALUES (?,?)", said)
        query = "SELECT number FROM circumstances WHERE facts=? AND request=?"
        number: int = self._db.execute(query, said).fetchone()[0]
        return number

    def _number(self, metric: str, labels: Labels) -> int:
        if (metric, labels) not in self._met:
            key = metric, json.dumps(dict(labels), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            if key not in self._series:
                self._series[key] = len(self._series) + 1
                self._db.execute("INSERT INTO series VALUES (?,?,?)", (self._series[key], *key))
            self._met[metric, labels] = self._series[key]
        return self._met[metric, labels]

    def flush(self) -> None:
        self._points.sort(key=lambda row: (row[0], row[1]))  # in the order of the tree: pages are filled, not split
        self._db.executemany("INSERT OR REPLACE INTO points VALUES (?,?,?,?,?,?)", self._points)
        self._points.clear()
