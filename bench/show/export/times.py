"""When a run was, in the numbers that formats want."""

from __future__ import annotations

from datetime import UTC, datetime

from bench.model import Run


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time in UTC, or None for what is no time."""
    try:
        found = datetime.fromisoformat(text or "")
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def ended(run: Run) -> datetime | None:
    """When the run's figures were complete: its end, or its start where it has none."""
    return moment(run.finished_at) or moment(run.started_at)


def milliseconds(when: datetime | None) -> int:
    """Since the epoch; 0 for unknown."""
    return 0 if when is None else round(when.timestamp() * 1000)
