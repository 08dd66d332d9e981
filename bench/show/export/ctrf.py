"""Common Test Report Format (ctrf.io), JSON, for the reporters and pull-request comments built on it.

CTRF has no word for "could not be decided", and its readers take ``skipped``, ``pending`` and ``other`` for green;
so INCONCLUSIVE is ``failed`` with our own word in ``rawStatus``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bench.model import Run
from bench.show.export import Export
from bench.show.export.cases import Case, Suite, ended, milliseconds, moment, suites
from bench.show.text import clean

SPEC_VERSION = "0.0.0"


def render(export: Export) -> str:
    run = export.run
    return document(suites(run), (moment(run.started_at), ended(run)), run.bench_version, _environment(run))


def document(
    found: Sequence[Suite],
    times: tuple[datetime | None, datetime | None],
    version: str | None,
    environment: Mapping[str, str],
) -> str:
    """Suites as one JSON text. ``times``: when it began and ended; ``environment``: foreign texts by name."""
    tests = [_test(suite.name, case) for suite in found for case in suite.cases]
    report = {
        "reportFormat": "CTRF",
        "specVersion": SPEC_VERSION,
        "generatedBy": "aiready-bench",
        "results": {
            "tool": {"name": "aiready-bench"} | ({"version": clean(version)} if version else {}),
            "summary": _summary(times, tests, len(found)),
            "tests": tests,
            "environment": {"extra": {key: clean(value) for key, value in environment.items()}},
        },
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def _summary(
    times: tuple[datetime | None, datetime | None], tests: list[dict[str, Any]], suites_: int
) -> dict[str, int]:
    start, stop = (milliseconds(time) for time in times)
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
    return {
        "hostname": run.node.hostname,
        "run": run.id,
        "fingerprint": run.node.fingerprint,
        "accelerator": run.request.accelerator,
        "effort": run.request.effort.value,
    }
