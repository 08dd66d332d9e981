"""JUnit XML, as Ant writes it and as GitLab, Jenkins, GitHub and Buildkite read it.

Contract: pass, failure (NO-GO), error (INCONCLUSIVE or no data); never ``skipped``. The element order and the required
attributes are those of the Windy Road JUnit schema, the strictest of those in use; Jenkins' schema holds as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from bench.model import Run
from bench.show.export import Export
from bench.show.export.cases import Case, Suite, moment, seconds, suites
from bench.show.text import clean
from bench.show.wording import when


def render(export: Export) -> str:
    run = export.run
    return document(suites(run), run.node.hostname, run.started_at, seconds(run), _facts(run))


def document(
    found: Sequence[Suite], host: str, started_at: str | None, took: float, properties: Mapping[str, str]
) -> str:
    """Suites as one XML text. ``took`` in seconds; all texts but those of the suites may be foreign."""
    root = ElementTree.Element("testsuites")
    for number, suite in enumerate(found):
        attributes = {
            "name": suite.name,
            "package": "bench",
            "id": str(number),
            "timestamp": _timestamp(started_at),
            "hostname": clean(host, 255) or "localhost",
            "tests": str(len(suite.cases)),
            "failures": str(suite.count("failure")),
            "errors": str(suite.count("error")),
            "skipped": "0",
            "time": f"{took:.3f}",
        }
        _suite(ElementTree.SubElement(root, "testsuite", attributes), suite, properties)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _suite(element: ElementTree.Element, suite: Suite, properties: Mapping[str, str]) -> None:
    known = ElementTree.SubElement(element, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(known, "property", {"name": name, "value": clean(value)})
    for case in suite.cases:
        _case(element, suite.name, case)
    out = ElementTree.SubElement(element, "system-out")
    out.text = "\n".join(suite.notes) or None
    ElementTree.SubElement(element, "system-err")


def _facts(run: Run) -> dict[str, str]:
    found = {
        "run": run.id,
        "started_at": when(run.started_at),
        "effort": run.request.effort.value,
        "accelerator": run.request.accelerator,
        "fingerprint": run.node.fingerprint,
        "bench_version": run.bench_version or "unknown",
    }
    if run.attribution is not None:
        found["bottleneck"] = run.attribution.bottleneck
        found["explanation"] = run.attribution.explanation
    return found


def _case(suite: ElementTree.Element, classname: str, case: Case) -> None:
    attributes = {"name": case.name, "classname": classname, "time": "0.000"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.state != "pass":
        answer = ElementTree.SubElement(element, case.state, {"message": case.message, "type": case.raw})
        answer.text = "\n".join(case.details) or None


def _timestamp(text: str | None) -> str:
    """Without a zone, as the schema wants it; in UTC. What is no time is the epoch: there is no "unknown"."""
    return f"{moment(text) or datetime.fromtimestamp(0, UTC):%Y-%m-%dT%H:%M:%S}"
