"""JUnit XML, as Ant writes it and as GitLab, Jenkins, GitHub and Buildkite read it.

Contract: pass, failure (NO-GO), error (INCONCLUSIVE or no data); never ``skipped``. The element order and the required
attributes are those of the Windy Road JUnit schema, the strictest of those in use; Jenkins' schema holds as well.
"""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree

from bench.model import Run
from bench.show.formats import Export
from bench.show.formats.cases import Case, Suite, seconds, suites
from bench.show.formats.times import moment
from bench.show.text import clean
from bench.show.words import when


def render(export: Export) -> str:
    run = export.run
    root = ElementTree.Element("testsuites")
    for number, suite in enumerate(suites(run)):
        _suite(root, number, suite, run)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _suite(root: ElementTree.Element, number: int, suite: Suite, run: Run) -> None:
    attributes = {
        "name": suite.name,
        "package": "bench",
        "id": str(number),
        "timestamp": _timestamp(run.started_at),
        "hostname": clean(run.node.hostname, 255) or "localhost",
        "tests": str(len(suite.cases)),
        "failures": str(suite.count("failure")),
        "errors": str(suite.count("error")),
        "skipped": "0",
        "time": f"{seconds(run):.3f}",
    }
    element = ElementTree.SubElement(root, "testsuite", attributes)
    _properties(element, run)
    for case in suite.cases:
        _case(element, suite.name, case)
    out = ElementTree.SubElement(element, "system-out")
    out.text = "\n".join(suite.notes) or None
    ElementTree.SubElement(element, "system-err")


def _properties(suite: ElementTree.Element, run: Run) -> None:
    properties = ElementTree.SubElement(suite, "properties")
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
    for name, value in found.items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": clean(value)})


def _case(suite: ElementTree.Element, classname: str, case: Case) -> None:
    attributes = {"name": case.name, "classname": classname, "time": "0.000"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.state != "pass":
        answer = ElementTree.SubElement(element, case.state, {"message": case.message, "type": case.raw})
        answer.text = "\n".join(case.details) or None


def _timestamp(text: str) -> str:
    """Without a zone, as the schema wants it; in UTC. What is no time is the epoch: there is no "unknown"."""
    return f"{moment(text) or datetime.fromtimestamp(0, UTC):%Y-%m-%dT%H:%M:%S}"
