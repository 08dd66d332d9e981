"""One screen for a fleet: the verdict, who is missing and why, who is slower than its siblings, which part of it.

Plain characters, one layout for terminal and log. A sound node of a large fleet gets no line; a hole always does,
until there are more of one kind than anybody reads. All foreign text goes through `clean`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from bench.judge.fleet.model import (
    ANSWERED,
    Collective,
    Fleet,
    NodeOutcome,
    Outlier,
    PairOutcome,
    SharedStorage,
    Shift,
    State,
)
from bench.model import Decision
from bench.show.text import clean, fold, pad
from bench.show.wording import plural, score, title
from bench.units import human

_MOST_NODES = 12
_MOST_OUTLIERS = 10
_MOST_PAIRS = 6
_WIDTH = 100


def print_fleet(fleet: Fleet, where: str = "", stream: TextIO | None = None) -> None:
    """Write the screen to ``stream`` (standard output). ``where`` is the folder or page to look at next."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    stream.write(render(fleet, where).encode(encoding, "replace").decode(encoding))


def render(fleet: Fleet, where: str = "") -> str:
    """The screen as text that ends with a newline."""
    parts = [
        _head(fleet), _verdicts(fleet), _holes(fleet.nodes), _failing(fleet.nodes), _outliers(fleet.outliers),
        _pairs(fleet.pairs),
        [f"Collective: {collective_line(fleet.collective)}"] if fleet.collective else [],
        _section("Shared storage", [f"  {shared_line(one)}" for one in fleet.shared], _MOST_PAIRS),
        _section("The whole fleet moved (+ is worse)", [f"  {shift_line(s)}" for s in fleet.shifts], _MOST_OUTLIERS),
        _strangers(fleet.strangers), [f"See {clean(where)}"] if where else [],
    ]  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _head(fleet: Fleet) -> list[str]:
    answered = sum(node.state in ANSWERED for node in fleet.nodes)
    measured = sum(pair.state is State.PASS for pair in fleet.pairs)
    pairs = f", {measured} of {plural(len(fleet.pairs), 'pair')}" if fleet.pairs else ""
    return [f"fleet {clean(fleet.id, 60)}: {answered} of {plural(len(fleet.nodes), 'node')} answered{pairs}"]


def _verdicts(fleet: Fleet) -> list[str]:
    lines = [f"{fleet.decision.value} for the fleet"]
    for verdict in fleet.verdicts:
        counts = ", ".join(f"{number} {clean(word)}" for word, number in sorted(verdict.nodes.items()))
        name = pad(clean(verdict.profile, 40), 24)
        lines.append(f"  {verdict.decision.value:<13} {name} score {score(verdict.score):>5}  {counts}")
    if fleet.decision is not Decision.GO:
        lines += [line for reason in fleet.reasons[:8] for line in _item(f"because {reason}")]
    return lines


def _holes(nodes: Sequence[NodeOutcome]) -> list[str]:
    missing = [node for node in nodes if node.state not in ANSWERED]
    lines = [f"  {pad(clean(n.host, 40), 24)} {n.state.value:<19}{clean(n.reason or '', 160)}" for n in missing]
    return _section("Missing", lines, _MOST_NODES)


def _failing(nodes: Sequence[NodeOutcome]) -> list[str]:
    found = [node for node in nodes if node.state in (State.FAIL, State.INCONCLUSIVE)]
    lines = [
        f"  {pad(clean(n.host, 40), 24)} {n.state.value:<13} {clean(n.failed[0] if n.failed else '', 160)}"
        for n in sorted(found, key=lambda n: n.state is not State.FAIL)
    ]
    return _section("Not ready", lines, _MOST_NODES)


def outlier_line(o: Outlier) -> str:
    """``n3: port: network throughput 100 MB/s, expected 500 MB/s (80 % worse) act, confirmed``."""
    labels = ", ".join(clean(value, 40) for key, value in o.labels.items() if key != "path")
    what = f"{title(o.metric)}{f' ({labels})' if labels else ''}"
    sure = "confirmed" if o.confirmed else "measured once"
    points = "points" if o.metric.endswith("_ratio") else "%"
    return (
        f"{clean(o.host, 60)}: {clean(o.part, 60)}: {what} {human(o.observed, o.metric)}, "
        f"expected {human(o.expected, o.metric)} ({100 * o.deviation_ratio:.0f} {points} worse; {o.level}, {sure})"
    )


def _outliers(found: Sequence[Outlier]) -> list[str]:
    return _section("Slower than siblings", [line for o in found for line in _item(outlier_line(o))], _MOST_OUTLIERS)


def _pairs(pairs: Sequence[PairOutcome]) -> list[str]:
    bad = [pair for pair in pairs if pair.state is not State.PASS]
    return _section(
        "Pairs without a figure",
        [f"  {clean(p.client, 40)} - {clean(p.server, 40)}  {p.state.value}: {clean(p.reason or '', 99)}" for p in bad],
        _MOST_PAIRS,
    )


def collective_line(found: Collective) -> str:
    """``all-reduce over 16 ranks of 2 nodes at 300 GB/s bus bandwidth, n3 GPU 5 arrives last``, or why not."""
    if found.bus_bytes_per_second is None:
        return f"{found.state.value}: {clean(found.reason or 'no figure', 200)}"
    late = f", {clean(found.straggler, 60)} arrives last" if found.straggler else ""
    rate = human(found.bus_bytes_per_second, "collective_bus_bytes_per_second")
    nodes = f" of {plural(len(found.ranks), 'node')}" if found.world > len(found.ranks) else ""
    return f"all-reduce over {found.world or len(found.ranks)} ranks{nodes} at {rate} bus bandwidth{late}"


def shared_line(one: SharedStorage) -> str:
    """``/data: one node alone 2 GB/s, the least of 8 at once 0.4 GB/s``."""
    least = min(one.together.values(), default=None)
    alone = max(one.alone.values(), default=None)
    texts = [human(rate, "storage_read_bytes_per_second") if rate is not None else "?" for rate in (alone, least)]
    missing = f", {plural(len(one.missing), 'node')} without a figure" if one.missing else ""
    together = f"the least of {len(one.together)} at once {texts[1]}{missing}"
    return f"{clean(one.path)}: one node alone {texts[0]}, {together}"


def shift_line(s: Shift) -> str:
    """``storage read: +20 % on 8 nodes (64 x CPU, ...; act, measured once)``."""
    labels = ", ".join(clean(value, 40) for value in s.labels.values())
    points = "points" if s.metric.endswith("_ratio") else "%"
    sure = f"; {s.level}, {'confirmed' if s.confirmed else 'measured once'}" if s.level == "act" else ""
    what = f"{title(s.metric)}{f' ({labels})' if labels else ''}"
    return f"{what}: {100 * s.shift_ratio:+.0f} {points} on {plural(s.nodes, 'node')} ({clean(s.node_class, 48)}{sure})"


def _strangers(found: Iterable[str]) -> list[str]:
    return _section("Files of nobody that was named", [f"  {clean(line, 160)}" for line in found], _MOST_PAIRS)


def _section(heading: str, lines: Sequence[str], most: int) -> list[str]:
    if not lines:
        return []
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return [heading, *(line.rstrip() for line in lines[:most]), *more]


def _item(text: str) -> list[str]:
    first, *rest = fold(clean(text), _WIDTH - 4)
    return [f"  {first}", *(f"    {line}" for line in rest)]
