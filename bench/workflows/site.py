"""Where things are: results, the site's ``bench.toml``, profiles. Everything wrong here is status 2, one line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.judge.profile import Profile
    from bench.model import Metric

_LISTS = ("profile", "probe", "storage", "peer")
_WORDS = ("accelerator", "effort", "results")
CONFIG = "bench.toml"


def config_paths() -> list[Path]:
    """In order of precedence; the first that exists is the one that counts."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [Path(CONFIG), home / "aiready-bench" / CONFIG, Path("/etc/aiready-bench") / CONFIG]


def config() -> dict[str, Any]:
    """The site's settings: the same names as the options of ``bench run``. Raises CliError that names the place."""
    path = next((path for path in config_paths() if path.is_file()), None)
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CliError(f"{path}: {error}") from error
    for name, value in found.items():
        _check_setting(path, name, value)
    return found


def _check_setting(path: Path, name: str, value: Any) -> None:
    if name in _LISTS:
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise CliError(f"{path}: {name} must be a list of strings")
    elif name in _WORDS:
        if not isinstance(value, str):
            raise CliError(f"{path}: {name} must be a string")
    else:
        import difflib

        near = difflib.get_close_matches(name, [*_LISTS, *_WORDS], 1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join([*_LISTS, *_WORDS])}"
        raise CliError(f"{path}: unknown setting {name!r}{hint}")


def results_root(option: Path | None, settings: Mapping[str, Any] | None = None) -> Path:
    """``--results`` or ``BENCH_RESULTS``, the site's setting, ``results/`` here, the XDG state folder: the first."""
    if option is not None:
        return option
    if site := (settings if settings is not None else config()).get("results"):
        return Path(site)
    if Path("results").is_dir():
        return Path("results")
    if os.geteuid() == 0:
        return Path("/var/lib/aiready-bench")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "aiready-bench"


def shipped_profiles() -> dict[str, Path]:
    """Name -> file of every profile in the wheel."""
    folder = Path(__file__).resolve().parent.parent / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_profiles(wanted: Sequence[str], metrics: Mapping[str, Metric]) -> list[Profile]:
    """Shipped profiles by name, others by file; every shipped one if none is named. Raises CliError."""
    from bench.judge.profile import ProfileError, load

    shipped = shipped_profiles()
    found = []
    for word in wanted or list(shipped):
        path = shipped.get(word) or Path(word)
        try:
            found.append(load(path.read_text(encoding="utf-8"), str(path), metrics))
        except FileNotFoundError as error:
            raise CliError(f"profile {word!r}: no such file, and none of {', '.join(shipped)}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"profile {word}: {error}") from error
        except ProfileError as error:
            raise CliError(str(error)) from error
    names = [profile.name for profile in found]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise CliError(f"profile {doubles[0]!r} is given twice; a verdict is found by its profile's name")
    return found


def declared_metrics() -> dict[str, Metric]:
    """Every metric that some probe declares, by name."""
    from probes import discover

    return {metric.name: metric for probe in discover() for metric in probe.metrics}


def metric_owners() -> dict[str, str]:
    """Metric name -> the probe that measures it."""
    from probes import discover

    return {metric.name: probe.name for probe in discover() for metric in probe.metrics}
