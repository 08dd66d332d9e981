"""Filling the index: which run files there are, and a run as rows."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from bench.judge.baseline.epoch import epoch_of, telling
from bench.judge.baseline.series import Labels
from bench.model import Run

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
    interrupted = any((result.reason or "").startswith("interrupted") for result in run.results)
    return not (run.replay_of or run.interrupted_by is not None or run.finished_at is None or interrupted)


def listed(root: Path) -> Iterator[tuple[str, Stamp]]:
    """Every run file as ``host/name`` with its time, size and inode; nothing hidden, nothing behind a link."""
    with suppress(OSError), os.scandir(root / "runs") as folders:
        for folder in folders:
            if folder.name.startswith(".") or not folder.is_dir(follow_symlinks=False):
                continue
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
        self._fingerprints: set[str] = set()

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
        confirms = run.request.options.get("confirms")
        row = (
            number,
            path,
            run.id,
            run.node.hostname,
            at,
            epoch_of(run.node, run.request),
            run.node.fingerprint,
            run.request.effort.value,
            is_sound(run),
            confirms if isinstance(confirms, str) else None,
            json.dumps([(v.profile, v.digest, v.decision.value) for v in run.verdicts]),
        )
        self._db.execute(f"INSERT INTO runs VALUES ({','.join('?' * len(row))})", row)
        if run.node.fingerprint not in self._fingerprints:
            self._fingerprints.add(run.node.fingerprint)
            known = run.node.fingerprint, json.dumps(telling(run.node.facts))
            self._db.execute("INSERT OR IGNORE INTO facts VALUES (?,?)", known)
        for m in run.measurements():
            series = self._number(m.metric, tuple(m.labels.items()))
            self._points.append((series, number, m.value, *m.interval, m.invalid))
        return number

    def _number(self, metric: str, labels: Labels) -> int:
        number = self._met.get((metric, labels))
        if number is None:
            key = metric, labels_text(labels)
            number = self._series.get(key)
            if number is None:
                number = self._series[key] = len(self._series) + 1
                self._db.execute("INSERT INTO series VALUES (?,?,?)", (number, *key))
            self._met[metric, labels] = number
        return number

    def flush(self) -> None:
        self._points.sort(key=lambda row: (row[0], row[1]))  # in the order of the tree: pages are filled, not split
        self._db.executemany("INSERT OR REPLACE INTO points VALUES (?,?,?,?,?,?)", self._points)
        self._points.clear()
