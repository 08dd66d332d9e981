"""The probes, found by their place: a module with a ``PROBE``, or a package whose ``probe.py`` has one."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator

from bench.measure.probe import Probe


def discover() -> list[Probe]:
    """All probes, light before heavy. Raises ValueError when two of them share a name or a metric."""
    found = sorted(_probes(), key=lambda probe: (probe.order, probe.name))
    _refuse_doubles([probe.name for probe in found])
    _refuse_doubles([metric.name for probe in found for metric in probe.metrics])
    return found


def _probes() -> Iterator[Probe]:
    for found in pkgutil.iter_modules(__path__, f"{__name__}."):
        name = f"{found.name}.probe" if found.ispkg else found.name
        if importlib.util.find_spec(name) is not None:  # peer and common are packages without a probe
            probe = getattr(importlib.import_module(name), "PROBE", None)
            if isinstance(probe, Probe):
                yield probe


def _refuse_doubles(names: list[str]) -> None:
    doubles = {name for name in names if names.count(name) > 1}
    if doubles:
        raise ValueError(f"declared twice: {', '.join(sorted(doubles))}")
