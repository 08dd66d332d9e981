"""One screen for a fleet: the verdict, who is missing and why, who is slower than its siblings, which part of it.

Plain characters, one layout for terminal and log. A sound node of a large fleet gets no line; a hole always does,
until there are more of one kind than anybody reads. All foreign text goes through `clean`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.judge.fleet.model import ANSWERED, Collective, Fleet, FleetVerdict, Outlier, SharedStorage, Shift, State
from bench.model import Decision
from bench.show.text import clean, hang, pad
from bench.show.wording import plural, score, title
from bench.units import human

_MOST_NODES = 12
_MOST_OUTLIERS = 10
_MOST_PAIRS = 6
_WIDTH = 100


def render(fleet: Fleet, where: str = "") -> str:
    """The screen as text that ends with a newline. ``where`` is the folder or page to look at next."""
    nodes, outliers = fleet.nodes, [line for o in fleet.outliers for line in hang(clean(outlier_line(o)), _WIDTH)]
    missing = [f"  {_name(n.host)} {n.state:<19}{clean(n.reason or '', 160)}" for n in nodes if n.state not in ANSWERED]
    not_ready = [n for state in (State.FAIL, State.INCONCLUSIVE) for n in nodes if n.state is state]
    failing = [f"  {_name(n.host)} {n.state:<13} {clean(''.join(n.failed[:1]), 160)}" for n in not_ready]
    holes = [p for p in fleet.pairs if p.state is not State.PASS]
    pairs = [f"  {clean(p.client, 40)} - {clean(p.server, 40)}  {p.state}: {clean(p.reason or '', 99)}" for p in holes]
    parts = [
        [_head(fleet)],
        _verdicts(fleet),
        _section("Missing", missing, _MOST_NODES),
        _section("Not ready", failing, _MOST_NODES),
        _section("Slower than siblings", outliers, _MOST_OUTLIERS),
        _section("Pairs without a figure", pairs, _MOST_PAIRS),
        [f"Collective: {collective_line(fleet.collective)}"] if fleet.collective else [],
        _section("Shared storage", [f"  {shared_line(one)}" for one in fleet.shared], _MOST_PAIRS),
        _section("The whole fleet moved (+ is worse)", [f"  {shift_line(s)}" for s in fleet.shifts], _MOST_OUTLIERS),
        _section("Files of nobody that was named", [f"  {clean(one, 160)}" for one in fleet.strangers], _MOST_PAIRS),
        [f"See {clean(where)}"] if where else [],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _head(fleet: Fleet) -> str:
    answered = sum(node.state in ANSWERED for node in fleet.nodes)
    measured = sum(pair.state is State.PASS for pair in fleet.pairs)
    pairs = f", {measured} of {plural(len(fleet.pairs), 'pair')}" if fleet.pairs else ""
    return f"fleet {clean(fleet.id, 60)}: {answered} of {plural(len(fleet.nodes), 'node')} answered{pairs}"


def _verdicts(fleet: Fleet) -> list[str]:
    rows = (f"  {v.decision:<13} {_name(v.profile)} score {score(v.score):>5}  {counts(v)}" for v in fleet.verdicts)
    lines = [f"{fleet.decision} for the fleet", *rows]
    if fleet.decision is not Decision.GO:
        lines += [line for reason in fleet.reasons[:8] for line in hang(clean(f"because {reason}"), _WIDTH)]
    return lines


def counts(verdict: FleetVerdict) -> str:
    """``3 GO, 1 lost``: how many nodes came to what."""
    return ", ".join(f"{number} {clean(word)}" for word, number in sorted(verdict.nodes.items()))


def _name(text: str) -> str:
    return pad(clean(text, 40), 24)


def outlier_line(o: Outlier) -> str:
    """``n3: port: network throughput 100 MB/s, expected 500 MB/s (80 % worse; act, confirmed)``."""
    labels = {key: value for key, value in o.labels.items() if key != "path"}
    return (
        f"{clean(o.host, 60)}: {clean(o.part, 60)}: {_what(o.metric, labels)} {human(o.observed, o.metric)}, expected "
        f"{human(o.expected, o.metric)} ({_percent(o.deviation_ratio, o.metric)} worse; {o.level}, {_sure(o)})"
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
    rates = max(one.alone.values(), default=None), min(one.together.values(), default=None)
    alone, least = (human(rate, "storage_read_bytes_per_second") if rate is not None else "?" for rate in rates)
    missing = f", {plural(len(one.missing), 'node')} without a figure" if one.missing else ""
    return f"{clean(one.path)}: one node alone {alone}, the least of {len(one.together)} at once {least}{missing}"


def shift_line(s: Shift) -> str:
    """``storage read: +20 % on 8 nodes (64 x CPU, ...; act, measured once)``."""
    moved, sure = _percent(s.shift_ratio, s.metric, "+"), f"; {s.level}, {_sure(s)}" if s.level == "act" else ""
    where = f"on {plural(s.nodes, 'node')} ({clean(s.node_class, 48)}{sure})"
    return f"{_what(s.metric, s.labels)}: {moved} {where}"


def _what(metric: str, labels: Mapping[str, str]) -> str:
    values = ", ".join(clean(value, 40) for value in labels.values())
    return title(metric) + (f" ({values})" if values else "")


def _percent(ratio: float, metric: str, sign: str = "") -> str:
    """A difference of two ratios is one of points, not of percent."""
    return f"{100 * ratio:{sign}.0f} {'points' if metric.endswith('_ratio') else '%'}"


def _sure(found: Outlier | Shift) -> str:
    return "confirmed" if found.confirmed else "measured once"


def _section(heading: str, lines: Sequence[str], most: int) -> list[str]:
    if not lines:
        return []
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return [heading, *(line.rstrip() for line in lines[:most]), *more]
