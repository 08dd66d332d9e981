"""Kubernetes Node Problem Detector, custom plugin protocol: at most 80 bytes on standard output, status 0, 1 or 2.

https://github.com/kubernetes/node-problem-detector/blob/master/docs/custom_plugin_monitor.md: 0 OK, 1 NonOK, 2
Unknown; what is longer than ``max_output_length`` (80 by default) is cut off, so the decision comes first.
"""

from __future__ import annotations

from bench.show.export import Export
from bench.show.export.nagios import headline
from bench.show.text import clean

MAX_BYTES = 80


def render(export: Export) -> str:
    return unknown(export.stale) if export.stale else _cut(headline(export.run)[1])


def unknown(why: str) -> str:
    return _cut(f"no verdict: {clean(why)}")


def _cut(text: str) -> str:
    """One line of at most 80 bytes with its newline; never half a character."""
    room = MAX_BYTES - 1
    data = text.encode("utf-8", "replace")
    if len(data) > room:
        data = data[: room - 3].decode("utf-8", "ignore").rstrip().encode() + b"..."
    return data.decode() + "\n"
