"""Old nights are removed by rule: beyond the newest N of a node, never a pinned one, never another node's."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.store import baselines
from bench.store.errors import StoreError, one_line, why
from bench.store.history import prunable
from bench.store.index import Index


def prune(root: Path, host: str, keep: int) -> list[Path]:
    """Remove that node's runs beyond its newest ``keep`` nights, with their raw output; the documents removed.

    The raw output goes first, so that a run whose removal was cut short is still listed and goes the next time. Raises
    StoreError, and UnusableRun when the pins cannot be read: then nothing is removed.
    """
    decided = baselines.read(root, host)
    with Index(root) as index:
        found = prunable(index, host, keep, decided.pin.runs if decided.pin else ())
    removed = []
    for entry in found:
        path = root / "runs" / str(entry["path"])
        try:
            _remove(path)
        except OSError as error:
            raise StoreError(one_line(f"{path}: cannot be removed: {why(error)}")) from error
        removed.append(path)
    return removed


def _remove(path: Path) -> None:
    raw = path.with_suffix(".raw")
    if raw.is_dir() and not raw.is_symlink():
        shutil.rmtree(raw)
    path.unlink(missing_ok=True)
