"""What is generated from the declarations, by the file that holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.cli.export import generated
from bench.workflows.catalog import declared, load_profiles, shipped_profiles
from probes import discover
from tests.golden import manual
from tests.golden.catalog import metrics_page, profiles_page

ROOT = Path(__file__).parents[2]


def _metrics() -> str:
    return metrics_page(discover())


def _profiles() -> str:
    return profiles_page(load_profiles(list(shipped_profiles()), declared().metrics))


FILES: Mapping[str, Callable[[], str]] = {
    "docs/metrics.md": _metrics,
    "docs/profiles.md": _profiles,
    "docs/integrations/prometheus/dashboard.json": lambda: generated("grafana"),
    "docs/integrations/prometheus/rules.yml": lambda: generated("rules"),
    **manual.FILES,
}
