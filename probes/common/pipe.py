"""The pipe from a load, which is a child program of ours: one JSON object a line, typed at both ends, and the two
records that end it.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from bench.measure.jsonl import decoded, records
from bench.measure.probe import Context, Failed, ProbeError, Unsupported
from bench.model import Code
from probes.common.http import INSTALL


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the pipe."""


@dataclass(frozen=True, slots=True)
class Refused(Record):
    """There is nothing to measure, or it cannot be measured here."""

    outcome: Literal["unsupported", "failed"]
    reason: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Done(Record):
    seconds: float = 0.0


R = TypeVar("R", bound=Record)


def of(found: Iterable[Record], kind: type[R]) -> list[R]:
    """The records of one kind."""
    return [record for record in found if isinstance(record, kind)]


def refusal(found: Sequence[Record], returncode: int, stderr: str, who: str) -> ProbeError | None:
    """Why ``who`` (the inference load) has no result, or None if it came to its end."""
    if refused := of(found, Refused):
        kind = Unsupported if refused[0].outcome == "unsupported" else Failed
        return kind.told(refused[0].reason, refused[0].remedy)
    if returncode == 0 and found and isinstance(found[-1], Done):
        return None
    last = (stderr.strip().splitlines() or ["it printed nothing to standard error"])[-1][:300]
    return Failed(Code.LOAD_FAILED, f"{who} ended with status {returncode}: {last}")


@dataclass(frozen=True, slots=True)
class Pipe:
    """What ``who`` says: records of these kinds, by the word at ``key``. With None, such lines are not read: marks that
    a stage begins or ends, so that the parent samples its watchers there.
    """

    who: str
    kinds: Mapping[str, type[Record] | None]
    key: str = "kind"

    def read(self, text: str, *, cut: bool = False) -> list[Record]:
        """The records of an output; of one that was ``cut`` off, those that can be read. Raises Failed."""
        return records(text, self.who, self.kinds, self.key, cut=cut)

    def line(self, record: Record, **more: Any) -> str:
        """One line, with ``more`` before the record's own. A number that is not finite is an error of ours."""
        word = next((word for word, kind in self.kinds.items() if kind is type(record)), None)
        fields = {name: value for name, value in asdict(record).items() if value is not None}
        return json.dumps({self.key: word, **more, **fields}, allow_nan=False)

    def say(self, record: Record, **more: Any) -> None:
        """Print its line; ``more`` is for whoever reads the evidence."""
        sys.stdout.write(self.line(record, **more) + "\n")
        sys.stdout.flush()

    def load(self, packages: Sequence[str], work: Callable[[], Refused | None]) -> int:
        """Run a load that needs these packages, and say how it ended; its exit status.

        Of an unexpected error only the place is told, because its text may hold a secret.
        """
        began = time.monotonic()
        try:
            for name in packages:
                import_module(name)
        except ImportError as error:
            self.say(Refused("unsupported", f"{Code.PACKAGE_MISSING}: {error.name} is not installed", INSTALL))
            return 0
        try:
            refused = work()
        except Exception as error:  # noqa: BLE001 - as above
            where = traceback.extract_tb(error.__traceback__)[-1]
            sys.stderr.write(f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}\n")
            return 1
        self.say(refused or Done(round(time.monotonic() - began, 3)))
        return 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Marks at both ends of a stage, named as the watchers' figures will be: ``inference.decode``."""
        self.say(Record(), **{self.key: "begin"}, stage=name)
        try:
            yield
        finally:
            self.say(Record(), **{self.key: "end"}, stage=name)

    def follow(self, ctx: Context, stages: ExitStack, line: str) -> None:
        """Marks open and close the watchers' stages while the load runs."""
        said = decoded(line, self.key) or {}
        word, stage = said.get(self.key), said.get("stage")
        if word == "begin" and isinstance(stage, str):
            stages.enter_context(ctx.stage(stage))
            ctx.progress(stage, None)
        elif word == "end":
            stages.pop_all().close()
