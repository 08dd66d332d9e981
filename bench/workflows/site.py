"""Where things are: this installation, the site's ``bench.toml``, the results, and the stored run that is meant."""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import __version__
from bench.errors import UserError, note
from bench.judge.toml_lines import Path as Place
from bench.judge.toml_lines import parse, refuse, shown
from bench.measure.regular_files import read_text
from bench.model import Run
from bench.store.errors import one_line
from bench.store.home import own_folder
from bench.store.index import Index
from bench.store.runs import Store

if TYPE_CHECKING:
    from importlib import metadata

OURS = "aiready-bench"
#: What each setting must be: in words, the type of the whole, and of the parts of a list.
_SETTINGS: dict[str, tuple[str, type, type]] = {
    **dict.fromkeys(("profile", "probe", "storage", "peer"), ("a list of strings", list, str)),
    **dict.fromkeys(("accelerator", "checks", "effort", "results", "sign"), ("a string", str, str)),
    "expect": ("a table", dict, str),
    "service": ("written as [[]] tables", list, dict),
}
CONFIG = "bench.toml"


def config_file() -> Path | None:
    """The file of the site's settings that counts, the first that is there; None without one.

    What lies behind a folder that may not be entered (another's home) is not there.
    """
    own = own_folder("XDG_CONFIG_HOME", ".config")
    paths = [Path(CONFIG), *([own / OURS / CONFIG] if own else []), Path("/etc") / OURS / CONFIG]
    return next((path for path in paths if os.path.isfile(path)), None)


def config() -> dict[str, Any]:
    """The site's settings: the same names as the options of ``bench run``. Raises UserError that names the place."""
    path = config_file()
    if path is None:
        return {}
    text = read_text(path)
    found = parse(text, str(path))
    wrong: dict[Place, str] = {(name,): why for name, value in found.items() if (why := _wrong_setting(name, value))}
    refuse(wrong, text, str(path))
    return found


def _wrong_setting(name: str, value: Any) -> str | None:
    if name not in _SETTINGS:
        near = difflib.get_close_matches(name, _SETTINGS, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_SETTINGS)}"
        return f"unknown setting {shown(name)}; {hint}"
    what, whole, part = _SETTINGS[name]
    words = value if isinstance(value, list) else []
    if not isinstance(value, whole) or not all(isinstance(word, part) for word in words):
        return f"{name} must be {what}"
    return f"{name} must not be empty" if "" in (value, *words) else None


def said_by(given: object, name: str, settings: Mapping[str, Any]) -> str:
    """Who said it, for a mistake in it: the option, or the file of settings."""
    return f"--{name}" if given or name not in settings else f"{config_file()}: {name}"


def results_root(option: Path | None, settings: Mapping[str, Any] | None = None) -> Path:
    """``--results`` or ``BENCH_RESULTS``, the site's setting, ``results/`` here, the XDG state folder: the first.

    Raises UserError when there is none.
    """
    if option is not None:
        return option
    if site := (settings if settings is not None else config()).get("results"):
        return Path(site)
    if os.path.isdir("results"):
        return Path("results")
    own = Path("/var/lib") if os.geteuid() == 0 else own_folder("XDG_STATE_HOME", ".local/state")
    if own is None:
        raise UserError("this account has no home folder to store runs in; name a folder with --results DIR")
    return own / OURS


def check_installation() -> None:
    """Raise UserError when another distribution owns ``bench`` or overwrote a part of ours.

    Files of two distributions in one environment overwrite each other: that is no place to measure from.
    """
    from importlib import metadata

    if others := rivals():
        raise UserError(
            f"{', '.join(others)} also owns `bench` in this Python environment: "
            f"install {OURS} into an environment of its own (python3 -m venv)"
        )
    try:
        installed = metadata.version(OURS)
    except metadata.PackageNotFoundError:
        return  # run from a checkout
    if installed != __version__:
        raise UserError(f"{OURS} {installed} is installed, but the package `bench` says {__version__}: reinstall it")


def rivals() -> list[str]:
    """Names of other installed distributions that own the package or the command ``bench``."""
    from importlib import metadata

    named = ((one.metadata["Name"] or "", one) for one in metadata.distributions())
    return sorted({name for name, one in named if name.lower().replace("_", "-") != OURS and _owns_bench(one)})


def _owns_bench(distribution: metadata.Distribution) -> bool:
    packages = (distribution.read_text("top_level.txt") or "").split()
    try:
        return "bench" in packages or "bench" in distribution.entry_points.names
    except ValueError:  # another package's entry_points.txt is malformed
        return False


# --- stored runs, as a user names them


def open_store(results: Path | None) -> Store:
    """The store of ``--results``, or of the site."""
    return Store(results_root(results), warn=note)


def open_index(results: Path | None) -> Index:
    """Its index. Raises UnusableRun."""
    return Index(results_root(results), warn=note)


def find_run(store: Store, reference: str | None) -> Run:
    """The run that was named, else this node's newest. Raises UserError, one line."""
    if reference:
        return store.find(reference)
    found = store.newest(socket.gethostname())
    if found is None:
        raise UserError(f"no run of this node is stored in {store.root}; measure with: bench run")
    return store.find(found.confirms) if found.confirms else found  # the newest may have measured some probes anew


def path_of(store: Store, reference: str | None, run: Run) -> Path:
    """The file that the run was found in: its evidence lies beside it."""
    return store.locate(reference) if reference else store.path_for(run)


def node_meant(index: Index, named: str | None) -> str:
    """The node that was named, else this one where it has runs, else the only one. Raises UserError, one line."""
    hosts = index.hosts()
    if not hosts:
        raise UserError(f"no run is stored in {index.root}; measure with: bench run")
    if named is not None:
        if named not in hosts:
            raise UserError(one_line(f"--node {named}: no run of it is stored; there are {', '.join(hosts[:10])}"))
        return named
    if (here := socket.gethostname()) in hosts:
        return here
    if len(hosts) > 1:
        raise UserError(one_line(f"no run of this node is stored; name one with --node: {', '.join(hosts[:10])}"))
    return hosts[0]
