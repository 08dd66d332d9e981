"""What other programs read: one file a format. Each renders one judged run; none reads a file or a clock.

A format that is a monitoring plugin's protocol (Nagios, Node Problem Detector) also says with which status to exit,
by the contract's table; the others exit 0 when they were written.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.model import Metric, Run

#: Name on the command line -> the module that renders it.
FORMATS = {
    "openmetrics": "openmetrics",
    "junit": "junit",
    "ctrf": "ctrf",
    "markdown": "markdown",
    "nagios": "nagios",
    "npd": "npd",
    "json": "run_json",
    "otlp": "otlp",
    "parquet": "parquet",
}
#: The contract's exit status -> the plugin's. 0 GO, 1 NO-GO, 2 no verdict, 3 INCONCLUSIVE.
PLUGIN_STATUS: Mapping[str, Mapping[int, int]] = {
    "nagios": {0: 0, 1: 2, 2: 3, 3: 3},
    "npd": {0: 0, 1: 1, 2: 2, 3: 2},
}
BINARY = frozenset({"parquet"})


class ExportError(UserError):
    """This run cannot be written in that format; the message is one line with the mend."""


@dataclass(frozen=True, slots=True)
class Export:
    """A judged run, and what its metrics are: by name, as the probes declare them.

    ``stale`` says why the run is too old to answer for the node now; a plugin's answer is then "unknown".
    """

    run: Run
    metrics: Mapping[str, Metric]
    stale: str | None = None


def render(name: str, export: Export) -> bytes:
    """The run in that format. Raises KeyError for an unknown format, ExportError where it cannot be written."""
    module = importlib.import_module(f"{__name__}.{FORMATS[name]}")
    rendered: Callable[[Export], str | bytes] = module.render
    found = rendered(export)
    return found if isinstance(found, bytes) else found.encode("utf-8", "replace")


def answer_unknown(name: str, why: str) -> bytes:
    """What a plugin prints when there is no verdict at all: no run, a run that cannot be read."""
    module = importlib.import_module(f"{__name__}.{FORMATS[name]}")
    unknown: Callable[[str], str] = module.unknown
    return unknown(why).encode("utf-8", "replace")
