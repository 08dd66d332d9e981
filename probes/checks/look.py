"""What a file of declared checks says, and what its evidence is now. A program of its own: its storage may hang.

Prints one JSON line for the file, and one for each check. Evidence is read whole and noted by its digest only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bench.errors import UserError
from bench.measure.regular_files import NotReadable, digest_below
from probes.checks.plan import load, read

#: Evidence is a document. What is larger is none, and would take its time to read.
_MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class LookedFile:
    """The file itself, and the day of the look (UTC)."""

    name: str
    sha256: str
    today: str
    kind: Literal["file"] = "file"


@dataclass(frozen=True, slots=True)
class LookedCheck:
    """A check as it is declared, and the digest of its evidence now, or ``why`` there is none. Dates are ISO 8601."""

    name: str
    line: int
    question: str
    owner: str
    answer: str
    evidence: str
    declared: str
    expires: str
    found: str = ""
    why: str = ""
    kind: Literal["check"] = "check"


def looked(path: Path) -> list[LookedFile | LookedCheck]:
    """Raises UserError for a file that cannot be used."""
    text = read(path)
    digest = hashlib.sha256(text.encode()).hexdigest()
    rows: list[LookedFile | LookedCheck] = [LookedFile(path.name, digest, datetime.now(UTC).date().isoformat())]
    for line, check in load(text, path.name):
        found = why = ""
        if check.evidence and not check.is_url:
            try:
                found = digest_below(path.parent, check.evidence, _MOST_BYTES)
            except NotReadable as error:
                why = str(error)
        rows.append(LookedCheck(
            name=check.name, line=line, question=check.question, owner=check.owner, answer=check.answer,
            evidence=check.evidence, declared=check.sha256, found=found, why=why,
            expires=check.expires.isoformat() if check.expires else "",
        ))  # fmt: skip
    return rows


def main() -> int:
    try:
        rows = looked(Path(sys.argv[1]))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
