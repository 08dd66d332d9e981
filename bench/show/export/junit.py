"""JUnit XML, as Ant writes it and as GitLab, Jenkins, GitHub and Buildkite read it.

Contract: pass, failure (NO-GO), error (INCONCLUSIVE or no data); never ``skipped``. The element order and the required
attributes are those of the Windy Road JUnit schema, the strictest of those in use; Jenkins' schema holds as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree

from bench.show.export import Export
from bench.show.export.cases import Suite, report_of
from bench.show.text import clean

#: The schema wants a time, and has no "unknown".
_EPOCH = datetime.fromtimestamp(0, UTC)


def render(export: Export) -> str:
    report = report_of(export.document)
    root = ElementTree.Element("testsuites")
    for number, suite in enumerate(report.suites):
        attributes = {
            "name": suite.name,
            "package": "bench",
            "id": str(number),
            "timestamp": f"{report.began or _EPOCH:%Y-%m-%dT%H:%M:%S}",  # UTC, without a zone: the schema
            "hostname": clean(report.host, 255) or "localhost",
            "tests": str(len(suite.cases)),
            "failures": str(suite.count("failure")),
            "errors": str(suite.count("error")),
            "skipped": "0",
            "time": f"{report.seconds:.3f}",
        }
        _suite(ElementTree.SubElement(root, "testsuite", attributes), suite, report.properties)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _suite(element: ElementTree.Element, suite: Suite, properties: Mapping[str, str]) -> None:
    known = ElementTree.SubElement(element, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(known, "property", {"name": name, "value": clean(value)})
    for case in suite.cases:
        attributes = {"name": case.name, "classname": suite.name, "time": "0.000"}
        test = ElementTree.SubElement(element, "testcase", attributes)
        if case.state != "pass":
            answer = ElementTree.SubElement(test, case.state, {"message": case.message, "type": case.raw})
            answer.text = "\n".join(case.details) or None
    ElementTree.SubElement(element, "system-out").text = "\n".join(suite.notes) or None
    ElementTree.SubElement(element, "system-err")
