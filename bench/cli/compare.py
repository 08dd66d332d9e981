"""``bench compare A B``: which differences are more than noise, and what differs of the node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.gate import find_run, open_store
from bench.cli.output import emit, note
from bench.cli.stored import Json, Results
from bench.store.errors import one_line
from bench.workflows import site as settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.judge.baseline.comparison import Difference
    from bench.judge.baseline.series import Key
    from bench.model import Run
    from bench.store.runs import Store


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A run file, an id or its beginning: the one before.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The one after.")],
    all_series: Annotated[bool, typer.Option("--all", help="Also what differs by no more than noise.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it as a page (HTML) there.")] = None,
    results: Results = None,
    json: Json = False,
) -> int:
    """Two stored runs side by side. Noise is that of the node's own nights where seven are stored.

    Examples:  bench compare 3f9a 77d0    bench compare 3f9a 77d0 -o before-after.html
    """
    store = open_store(results)
    if output is not None:
        from bench.cli.report import shown, write_page

        write_page([shown(store, a), shown(store, b)], output, store)
    found = compared(find_run(store, a), find_run(store, b), store)
    if json:
        from json import dumps

        emit(dumps({**found, "differences": [d.model_dump(mode="json") for d in found["differences"]]}, indent=2))
    else:
        emit("\n".join(map(one_line, _lines(found, all_series))))
    return 0


def compared(first: Run, second: Run, store: Store) -> dict[str, Any]:
    """``a``, ``b`` (ids), ``differences``, ``only_a``, ``only_b`` (series), ``facts`` (what differs of the nodes)."""
    from bench.judge.baseline.comparison import changes, differences, telling
    from bench.judge.baseline.series import key_of

    keys = [key_of(m) for m in first.measurements()]
    metrics = settings.declared_metrics()
    both, only_first, only_second = differences(first, second, metrics, _nights(first, second, keys, store))
    facts = changes(telling(first.node.facts), telling(second.node.facts))
    if first.node.fingerprint != second.node.fingerprint and not facts:
        facts = [f"fingerprint: {first.node.fingerprint} -> {second.node.fingerprint}"]
    if first.node.hostname != second.node.hostname:
        facts = [f"node: {first.node.hostname} -> {second.node.hostname}", *facts]
    return {
        "a": first.id,
        "b": second.id,
        "differences": both,
        "only_a": [_text(key) for key in only_first],
        "only_b": [_text(key) for key in only_second],
        "facts": facts,
    }


def _nights(first: Run, second: Run, keys: Sequence[Key], store: Store) -> dict[Key, list[float]]:
    """The node's nights of the first run's epoch, but for these two runs; none where the runs are of two nodes."""
    from bench.judge.baseline.comparison import epoch_of
    from bench.store.index import Index

    host = first.node.hostname
    if second.node.hostname != host:
        return {}
    with Index(store.root, warn=note) as index:
        sessions = index.runs(host, epoch_of(first.node, first.request), float("-inf"), float("inf"), 30)
        ids = [s.run for s in sessions if s.sound and s.confirms is None and s.run not in (first.id, second.id)]
        return {key: list(index.values(*key, host, ids).values()) for key in keys}


def _text(key: Key) -> str:
    metric, labels = key
    return metric + (f"{{{','.join(f'{name}={value}' for name, value in labels)}}}" if labels else "")


def _lines(found: dict[str, Any], all_series: bool) -> list[str]:
    shown = [d for d in found["differences"] if all_series or d.verdict != "same"]
    same = len(found["differences"]) - len(shown)
    lines = [f"{found['a']} -> {found['b']}"]
    lines += [_line(difference) for difference in shown]
    lines += [f"  {same} series differ by no more than noise"] if same else []
    for name, run in (("only_a", found["a"]), ("only_b", found["b"])):
        lines += [f"  only in {run}: {text}" for text in found[name]]
    return lines + [f"  {fact}" for fact in found["facts"]]


def _line(difference: Difference) -> str:
    from bench.units import human

    amount = "" if difference.change_ratio is None else f" ({100 * difference.change_ratio:+.1f} %)"
    noise = "" if difference.noise_ratio is None else f", noise up to {100 * difference.noise_ratio:.1f} %"
    labels = tuple(sorted(difference.labels.items()))
    values = f"{human(difference.a, difference.metric)} -> {human(difference.b, difference.metric)}"
    return (
        f"  {difference.verdict:<9} {_text((difference.metric, labels))}  {values}{amount}{noise}; {difference.basis}"
    )
