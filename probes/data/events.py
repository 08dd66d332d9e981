"""What a survey of a data set prints, one JSON object a line. None holds what a sample holds."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from bench.measure import jsonl

#: In place of the digest of a description that is not there.
NONE = "none"


@dataclass(frozen=True, slots=True)
class Found:
    """The data set as it lies there. ``exact``: ``samples`` was counted, not estimated.

    ``other``: files by suffix that no decoder is known for, ``unseen`` bytes in all. ``unlisted``: folders that could
    not be listed; ``linked``: links to folders.
    """

    files: int
    bytes: int
    samples: float
    exact: bool
    formats: dict[str, int]
    other: dict[str, int]
    unlisted: int = 0
    linked: int = 0
    unseen: int = 0


@dataclass(frozen=True, slots=True)
class Access:
    """Who can reach it and what protects it. ``encrypted``: by what, "no", or null where the kernel does not say."""

    owner: str
    group: str
    mode: str
    others_read: bool
    others_write: bool
    access_list: str
    encrypted: str | None
    options: list[str]


@dataclass(frozen=True, slots=True)
class Described:
    """The description that was found. ``wrong``: why it cannot be used; ``lacking``: what its standard asks for."""

    file: str
    sha256: str
    standard: str | None
    lacking: list[str]
    wrong: str | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """One sample. ``at``: where in its file; ``fault`` and ``undocumented``: why it does not count, else null.

    ``seconds``: when it had been looked at, since the survey began. ``decoded_bytes`` lie on the storage and were
    decoded for it, in ``decode_seconds`` of a CPU's time: a row's whole group, and nothing where that was at hand.
    """

    file: str
    at: str
    bytes: int
    fault: str | None
    undocumented: str | None
    seconds: float = 0.0
    decoded_bytes: int = 0
    decode_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """The rate since the look before: samples and bytes a second that were read and decoded, by one process."""

    samples: int
    samples_per_second: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Ended:
    """``why``: clear (of the limit), whole (all was looked at), most, time. ``cores``: what may decode, 0 if unknown.

    ``unchecked``: files too large to be held against the checksum that is declared for them. ``began``: when the survey
    did, by the machine's monotonic clock; 0 in an older recording.
    """

    why: str
    most: int
    unchecked: int
    cores: float = 0.0
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What the data is known by: SHA-256 over all paths and sizes, the ends of 64 files, its description."""

    inventory: str
    content: str
    description: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The survey cannot be made: a word, and a sentence for people."""

    word: str
    text: str


Event = Found | Access | Described | Drawn | Look | Ended | Identity | Refused
_KINDS: dict[str, type[Event]] = {
    "found": Found, "access": Access, "described": Described, "drawn": Drawn, "look": Look, "ended": Ended,
    "identity": Identity, "refused": Refused,
}  # fmt: skip
_NO_TEXT = re.compile("[\ud800-\udfff]")


def line(event: Event) -> str:
    """One line of JSON; the bytes of a name that is no UTF-8 stand in it as ``\\xff``."""
    text = json.dumps({"kind": type(event).__name__.lower(), **asdict(event)}, ensure_ascii=False)
    return _NO_TEXT.sub(lambda found: f"\\\\x{ord(found[0]) & 0xFF:02x}", text)


def read(text: str, *, cut: bool = False) -> list[Event]:
    """What was printed. Raises Failed for a line that is none of it."""
    return jsonl.records(text, "the survey of the data", _KINDS, cut=cut)
