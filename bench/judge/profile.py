"""Profile and Gate, read from TOML: strict, with file, line and the nearest name for each mistake.

A profile is data: a metric, a limit, where the limit comes from. There is no expression language, and nothing of a
profile is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, StringConstraints, ValidationInfo, field_validator, model_validator

from bench.judge.toml_lines import Path, StrictTable, form, nearest, parse, refuse, shown
from bench.model import Label, Limit, Metric, Name

#: Every measurement may carry it, whatever its metric declares.
STAND_IN = "stand_in"
Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class Gate(StrictTable):
    """One metric and one limit. ``min`` and ``max`` are in the metric's base unit, and exactly one is given.

    ``per`` multiplies ``min`` by the accelerators of the node. ``when`` asks only nodes that have RDMA (InfiniBand or
    RoCE), or only those that have none.
    """

    metric: Name
    labels: dict[Name, Label] = Field(default_factory=dict)
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None
    required: bool = True
    accept_stand_in: bool = False
    per: Literal["accelerator"] | None = None
    when: Literal["rdma", "no_rdma", "endpoint", "no_endpoint"] | None = None
    source: Sentence
    remedy: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""

    @field_validator("per")
    @classmethod
    def _multiplies_a_minimum(cls, per: str | None, info: ValidationInfo) -> str | None:
        if per and not (info.data.get("min") or 0.0) > 0.0:
            raise ValueError("asks more of a node with more accelerators, so `per` needs a `min` above 0")
        return per

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.min is None) == (self.max is None):
            raise ValueError("needs one limit, `min` or `max`" + ("" if self.min is None else ", not both"))
        return self

    @property
    def limit(self) -> Limit:
        return Limit(min=self.min, max=self.max)


class Profile(StrictTable):
    """What one workload needs. At least one gate is required, else there is nothing that a GO could stand on.

    ``needs`` is the option of a request without which there is nothing to judge: a shipped profile that has one is
    judged by default only where that was named.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    description: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""
    needs: Literal["service", "data", "checks"] | None = None
    gates: tuple[Gate, ...] = Field(alias="gate", strict=False)

    @model_validator(mode="after")
    def _can_decide(self) -> Self:
        if not any(gate.required for gate in self.gates):
            raise ValueError("no gate is required, so the profile can never decide anything" if self.gates else _EMPTY)
        return self

    def has_its_input(self, options: Collection[str]) -> bool:
        """Whether what it needs is among the options that a request names; always, where it needs nothing."""
        return self.needs is None or self.needs in options

    @cached_property
    def digest(self) -> str:
        """sha256 of what the profile says, in hexadecimal; not of comments, layout or spelled-out defaults."""
        said = self.model_dump(mode="json", exclude_none=True)
        content = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


_EMPTY = "there is no [[gate]]"


def load(text: str, name: str, metrics: Mapping[str, Metric]) -> Profile:
    """The profile in ``text``; ``name`` is the file's, for messages; ``metrics`` are those the probes declare.

    Raises TomlError with one line for each mistake, in the order of the file.
    """
    raw = parse(text, name)
    meaning = dict(_meaning(raw, metrics))
    mistakes = {path: said for path, said in form(raw, Profile, Gate, "gate") if path[:-1] not in meaning} | meaning
    refuse(mistakes, text, name)
    return Profile.model_validate(raw)


def _meaning(raw: dict[str, Any], metrics: Mapping[str, Metric]) -> Iterator[tuple[Path, str]]:
    """Metrics and labels that nobody declares, limits that make no sense for theirs, and gates that are there twice."""
    gates = raw.get("gate")
    seen: set[str] = set()
    for index, gate in enumerate(gates if isinstance(gates, list) else ()):
        if not isinstance(gate, dict) or not isinstance(gate.get("metric"), str):
            continue
        yield from _undeclared(("gate", index), gate, metrics)
        if metric := metrics.get(gate["metric"]):
            yield from _senseless(("gate", index), gate, metric)
        same = _identity(gate)
        if same in seen:
            yield ("gate", index), f"the gate on {shown(gate['metric'])} is there twice"
        seen.add(same)


def _undeclared(at: Path, gate: dict[str, Any], metrics: Mapping[str, Metric]) -> Iterator[tuple[Path, str]]:
    name, labels = gate["metric"], gate.get("labels")
    metric = metrics.get(name)
    if metric is None:
        hint = nearest(name, list(metrics)) or "; `bench probes` lists those that are"
        yield (*at, "metric"), f"no probe declares the metric {shown(name)}{hint}"
        return
    for label in labels if isinstance(labels, dict) else ():
        if label != STAND_IN and label not in metric.labels:
            hint = nearest(label, list(metric.labels)) or f"; it has {', '.join(metric.labels) or 'none'}"
            yield (*at, "labels", label), f"{name} has no label {shown(label)}{hint}"


def _senseless(at: Path, gate: dict[str, Any], metric: Metric) -> Iterator[tuple[Path, str]]:
    """A limit that a better figure breaks, or that no share can reach."""
    for word, other, sense in (("min", "max", "lower"), ("max", "min", "higher")):
        limit = gate.get(word)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or limit != limit or abs(limit) == math.inf:
            continue
        if metric.better == sense:
            yield (*at, word), f"{metric.name}: {sense} is better, so it needs a `{other}`, not a `{word}`"
        elif metric.is_share and not 0.0 <= limit <= 1.0:
            yield (*at, word), f"`{word}` must be between 0 and 1: {metric.name} is a share, and 10 % is 0.1"


def _identity(gate: dict[str, Any]) -> str:
    """What makes a second gate a repetition: a warning beside a required limit is not one."""
    labels, bounds = gate.get("labels"), [bound for bound in ("min", "max") if bound in gate]
    pairs = sorted((key, repr(value)) for key, value in labels.items()) if isinstance(labels, dict) else []
    return repr((gate["metric"], pairs, bounds, gate.get("required", True), gate.get("when")))
