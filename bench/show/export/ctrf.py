"""Common Test Report Format (ctrf.io), JSON, for the reporters and pull-request comments built on it.

CTRF has no word for "could not be decided", and its readers take ``skipped``, ``pending`` and ``other`` for green;
so INCONCLUSIVE, and what is missing or suspected, is ``failed`` with our own word in ``rawStatus``.
"""

from __future__ import annotations

import json
from typing import Any

from bench.show.export import Export
from bench.show.export.cases import Case, Report, report_of
from bench.show.text import clean

SPEC_VERSION = "0.0.0"


def render(export: Export) -> str:
    report = report_of(export.document)
    tests = [_test(suite.name, case) for suite in report.suites for case in suite.cases]
    document = {
        "reportFormat": "CTRF",
        "specVersion": SPEC_VERSION,
        "generatedBy": "aiready-bench",
        "results": {
            "tool": {"name": "aiready-bench"} | ({"version": clean(report.version)} if report.version else {}),
            "summary": _summary(report, tests),
            "tests": tests,
            "environment": {"extra": {key: clean(value) for key, value in report.environment.items()}},
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _summary(report: Report, tests: list[dict[str, Any]]) -> dict[str, int]:
    start, stop = (0 if time is None else round(time.timestamp() * 1000) for time in (report.began, report.ended))
    failed = sum(test["status"] == "failed" for test in tests)
    counts = {"tests": len(tests), "passed": len(tests) - failed, "failed": failed}
    never = {"skipped": 0, "pending": 0, "other": 0}
    times = {"start": start, "stop": stop, "duration": max(0, stop - start)}
    return counts | never | {"suites": len(report.suites)} | times


def _test(suite: str, case: Case) -> dict[str, Any]:
    test = {
        "name": case.name,
        "suite": [suite],
        "status": "passed" if case.state == "pass" else "failed",
        "rawStatus": case.raw,
        "duration": 0,
        "message": case.message,
    }
    return test | ({"trace": "\n".join(case.details)} if case.details else {})
