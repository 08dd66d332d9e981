"""Runs the demonstrations of a folder one after another, each a program of its own, and counts those that failed."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import time
from pathlib import Path

#: Minutes long, or they need packages of their own: name them.
NOT_FOR_ALL = (
    "error_rates",
    "absolute_rates",
    "peers_dlio",
    "peers_aiperf",
    "data_judges",
    "bundle_debian",
    "fleet_faults",
    "fleet_kills",
)


def run_all(package: str, folder: Path, wanted: list[str]) -> int:
    """Run the modules of ``package`` that are wanted (else all but the longest); returns how many failed."""
    names = [module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        sys.stderr.write(f"no such demonstration: {', '.join(unknown)}; there are {', '.join(names)}\n")
        return 2
    failed = [name for name in wanted or names if (wanted or name not in NOT_FOR_ALL) and not _run(package, name)]
    print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nevery claim holds")
    return len(failed)


def _run(package: str, name: str) -> bool:
    print(f"\n== {package}.{name}", flush=True)
    started = time.monotonic()
    status = subprocess.run([sys.executable, "-m", f"{package}.{name}"], check=False).returncode
    print(f"-- {'holds' if status == 0 else f'FAILED ({status})'} after {time.monotonic() - started:.0f} s", flush=True)
    return status == 0
