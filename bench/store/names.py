"""Where a run lies: ``runs/<hostname>/<UTC start, basic ISO 8601>-<short id>.json``, and its raw output beside it."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_FOLDER = 100
_LONGEST_ID = 32


def new_id() -> str:
    """Twelve hex digits. 48 random bits: among a million runs two collide with a chance below 0.2 %, and then
    only matter if they also began in the same second on the same host.
    """
    return secrets.token_hex(6)


def folder_name(hostname: str) -> str:
    """A host name as one folder name: letters, digits, ``.``, ``_`` and ``-``, no leading dot, at most 100 characters.

    An ordinary host name is kept as it is. One that had to be changed ends with a digest of the original, so that two
    different hosts never share a folder.
    """
    safe = _UNSAFE.sub("_", hostname).lstrip(".-")[:_LONGEST_FOLDER]
    if safe == hostname:
        return safe
    return f"{safe[: _LONGEST_FOLDER - 9] or 'host'}-{_digest(hostname)}"


def stem(started_at: str, run_id: str) -> str:
    """The file name without ``.json``; sorts by start. Raises ValueError if ``started_at`` is not RFC 3339."""
    return f"{_basic(started_at)}-{short_id(run_id)}"


def short_id(run_id: str) -> str:
    """The id itself, or for a long one (another program's) its beginning and a digest of the whole."""
    return run_id if len(run_id) <= _LONGEST_ID else f"{run_id[: _LONGEST_ID - 9]}-{_digest(run_id)}"


def id_part(stem_: str) -> str:
    """The short id at the end of a stem; empty when the name is not of our form."""
    return stem_.partition("-")[2]


def _basic(started_at: str) -> str:
    try:
        start = datetime.fromisoformat(started_at)
        utc = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"started_at is not an RFC 3339 time: {started_at[:60]!r}") from error
    return utc.replace(tzinfo=None).isoformat(timespec="seconds").replace("-", "").replace(":", "") + "Z"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
