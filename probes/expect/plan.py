"""What a node should be: a short TOML file, or the table ``[expect]`` of ``bench.toml``.

::

    driver = ">=570, <600"
    memory_bytes = 2163847000064            # at least
    [gpus]
    count = 8                               # exactly
    name = "NVIDIA H100 80GB HBM3"          # each of them, as the driver spells it
    memory_bytes = 85520809984              # each has at least
    [[port]]
    name = "mlx5_0/1"
    bytes_per_second = 5e10                 # up, and at least so fast

What is left out is not expected.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat, StringConstraints, ValidationError

from bench.judge.toml_lines import StrictTable

_BOUND = re.compile(r"(>=|<=|==|<|>)\s*(\d{1,9}(?:\.\d{1,9}){0,3})", re.ASCII)
_RANGE = re.compile(rf"\s*{_BOUND.pattern}(\s*,\s*{_BOUND.pattern})*\s*", re.ASCII)


def _range(text: str) -> str:
    """Bounds that some version keeps: the least one that could is 0, one of them, or the next after one of them."""
    if not _RANGE.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no range of versions, such as '>=570, <600'")
    bounds = [_parts(bound) for _, bound in _BOUND.findall(text)]
    tried = [(0,), *bounds, *((*bound[:-1], bound[-1] + 1) for bound in bounds)]
    if not any(within(".".join(map(str, one)), text) for one in tried):
        raise ValueError(f"no version is {text[:80]}")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
Range = Annotated[str, AfterValidator(_range)]


class Gpus(StrictTable):
    """The cards: exactly so many, each of that name and with at least so much memory."""

    count: Annotated[int, Field(ge=0)]
    name: Text | None = None
    memory_bytes: Positive | None = None


class ExpectedPort(StrictTable):
    """A port of InfiniBand (``device/port``) or Ethernet that is up, at least so fast."""

    name: Text
    bytes_per_second: Positive | None = None


class Expectation(StrictTable):
    """All that is expected. ``driver`` is a range of versions: bounds by ``>= <= == < >``, separated by commas."""

    gpus: Gpus | None = None
    driver: Range | None = None
    memory_bytes: Positive | None = None
    port: Annotated[tuple[ExpectedPort, ...], Field(strict=False)] = ()


def expectation(text: str) -> Expectation:
    """The same tables as JSON, as a run document keeps them. Raises ValueError, one line that names the key."""
    try:
        found = Expectation.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        said = "there is no such key" if first["type"] == "extra_forbidden" else first["msg"]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {said.removeprefix('Value error, ')}") from error
    if found == Expectation():
        raise ValueError("it expects nothing; `bench doctor --write-expect FILE` writes what a good node is")
    return found


def within(version: str, wanted: str) -> bool:
    """Does a dotted version lie in the range? Compared part by part, as numbers; a missing part is 0."""
    ours = _parts(version)
    orders = {">=": ours.__ge__, "<=": ours.__le__, "==": ours.__eq__, "<": ours.__lt__, ">": ours.__gt__}
    return all(orders[sign](_parts(bound)) for sign, bound in _BOUND.findall(wanted))


def _parts(version: str) -> tuple[int, ...]:
    found = [int(part) for part in re.findall(r"\d+", version, re.ASCII)[:4]]
    return (*found, *[0] * (4 - len(found)))
