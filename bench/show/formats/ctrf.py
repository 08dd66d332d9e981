"""Common Test Report Format (ctrf.io), JSON, for the reporters and pull-request comments built on it.

CTRF has no word for "could not be decided", and its readers take ``skipped``, ``pending`` and ``other`` for green;
so INCONCLUSIVE is ``failed`` with our own word in ``rawStatus``.
"""

from __future__ import annotations

import json
from typing import Any

from bench.model import Run
from bench.show.formats import Export
from bench.show.formats.cases import Case, suites
from bench.show.formats.times import ended, milliseconds, moment
from bench.show.text import clean

SPEC_VERSION = "0.0.0"


def render(export: Export) -> str:
    run = export.run
    found = suites(run)
    tests = [_test(suite.name, case) for suite in found for case in suite.cases]
    report = {
        "reportFormat": "CTRF",
        "specVersion": SPEC_VERSION,
        "generatedBy": "aiready-bench",
        "results": {
            "tool": _tool(run),
            "summary": _summary(run, tests, len(found)),
            "tests": tests,
            "environment": {"extra": _environment(run)},
        },
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def _tool(run: Run) -> dict[str, Any]:
    return {"name": "aiready-bench"} | ({"version": clean(run.bench_version)} if run.bench_version else {})


def _summary(run: Run, tests: list[dict[str, Any]], suites_: int) -> dict[str, int]:
    start, stop = milliseconds(moment(run.started_at)), milliseconds(ended(run))
    failed = sum(test["status"] == "failed" for test in tests)
    counts = {"tests": len(tests), "passed": len(tests) - failed, "failed": failed}
    never = {"skipped": 0, "pending": 0, "other": 0}
    return counts | never | {"suites": suites_, "start": start, "stop": stop, "duration": max(0, stop - start)}


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


def _environment(run: Run) -> dict[str, str]:
    found = {
        "hostname": run.node.hostname,
        "run": run.id,
        "fingerprint": run.node.fingerprint,
        "accelerator": run.request.accelerator,
        "effort": run.request.effort.value,
    }
    return {key: clean(value) for key, value in found.items()}
