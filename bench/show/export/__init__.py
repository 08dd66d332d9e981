"""What other programs read: one file a format, for a judged run and for a joined fleet. None reads a file or a clock.

A format that is a monitoring plugin's protocol (Nagios, Node Problem Detector) also says with which status to exit,
by the contract's table; the others exit 0 when they were written. Every named host of a fleet stands in each format
with its one state: a host without a result is an error, and never left out.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.judge.fleet.model import Fleet
    from bench.model import Metric, Run

#: Each but ``json`` is a module of this package with ``render``.
FORMATS = ("openmetrics", "junit", "ctrf", "markdown", "nagios", "npd", "json", "otlp", "parquet")
FLEET_FORMATS = ("openmetrics", "junit", "ctrf", "markdown", "nagios", "json")
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
    """A judged run with its metrics, by name, as the probes declare them; or a joined fleet.

    ``stale`` says why it is too old to answer for the nodes now; a plugin's answer is then "unknown".
    ``signed``: whether a statement and a signature lie beside the run, where that is known.
    """

    document: Run | Fleet
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    stale: str | None = None
    signed: bool | None = None

    @property
    def run(self) -> Run:
        """The document, in a format that is for runs only. Raises TypeError for a fleet."""
        from bench.model import Run

        if not isinstance(self.document, Run):
            raise TypeError("this format is for runs, not for fleets")
        return self.document


def render(name: str, export: Export) -> bytes:
    """The document in that format, one of `FORMATS` or `FLEET_FORMATS`. Raises ExportError if it cannot be written."""
    if name == "json":  # ASCII only, so that a terminal may show what a foreign name holds
        document = export.document.model_dump(mode="json", by_alias=True)
        return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    written: str | bytes = importlib.import_module(f"{__name__}.{name}").render(export)
    return written if isinstance(written, bytes) else written.encode("utf-8", "replace")


def answer_unknown(name: str, why: str) -> str:
    """What a plugin prints when there is no verdict at all: no run, a run that cannot be read."""
    text: str = importlib.import_module(f"{__name__}.{name}").unknown(why)
    return text
