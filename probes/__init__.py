"""The probes, found by their place: a module with a ``PROBE``, or a package whose ``probe.py`` has one.

All are imported for their declarations, by `bench gate` too: what only measuring or parsing needs is imported in the
function that uses it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections import Counter
from collections.abc import Iterator

from bench.measure.probe import Probe


def discover() -> list[Probe]:
    """All probes, light before heavy. Raises ValueError when two of them share a name or a metric."""
    found = sorted(_probes(), key=lambda probe: (probe.order, probe.name))
    names = Counter(name for probe in found for name in (probe.name, *(metric.name for metric in probe.metrics)))
    if doubles := sorted(name for name, times in names.items() if times > 1):
        raise ValueError(f"declared twice: {', '.join(doubles)}")
    return found


def _probes() -> Iterator[Probe]:
    for found in pkgutil.iter_modules(__path__, f"{__name__}."):
        name = f"{found.name}.probe" if found.ispkg else found.name
        if importlib.util.find_spec(name) is not None:  # peer and common are packages without a probe
            probe = getattr(importlib.import_module(name), "PROBE", None)
            if isinstance(probe, Probe):
                yield probe
