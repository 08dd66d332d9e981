"""Other distributions ship a ``bench`` too. Files of two in one environment overwrite each other: refuse to measure."""

from __future__ import annotations

from importlib import metadata

from bench import __version__
from bench.workflows.errors import CliError

OURS = "aiready-bench"


def rivals() -> list[str]:
    """Names of other installed distributions that own the package or the command ``bench``."""
    found = set()
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if name.lower().replace("_", "-") != OURS and (_owns_package(distribution) or _owns_command(distribution)):
            found.add(name)
    return sorted(found)


def _owns_package(distribution: metadata.Distribution) -> bool:
    return "bench" in (distribution.read_text("top_level.txt") or "").split()


def _owns_command(distribution: metadata.Distribution) -> bool:
    text = distribution.read_text("entry_points.txt") or ""
    return any(line.partition("=")[0].strip() == "bench" for line in text.splitlines() if "=" in line)


def check() -> None:
    """Raises CliError when another distribution owns ``bench`` or overwrote a part of ours."""
    others = rivals()
    if others:
        raise CliError(
            f"{', '.join(others)} also owns `bench` in this Python environment: "
            f"install {OURS} into an environment of its own (python3 -m venv)"
        )
    try:
        installed = metadata.version(OURS)
    except metadata.PackageNotFoundError:
        return  # run from a checkout
    if installed != __version__:
        raise CliError(f"{OURS} {installed} is installed, but the package `bench` says {__version__}: reinstall it")
