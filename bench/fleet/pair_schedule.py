"""Which pairs, in which rounds. In a round no host appears twice.

A schedule is data, not code: ``{"rounds": [[["a", "b"], ["c", "d"]], ...]}`` is written into the run's folder, so that
another launcher (``srun``) can walk it as well.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

Pair = tuple[str, str]
Round = tuple[Pair, ...]

#: Up to here every pair is measured: 31 rounds. Above it, random pairs and a second pass of suspects.
MOST_FOR_ALL = 32
RANDOM_ROUNDS = 3
#: With how many more sound hosts a suspect is measured: then most of its pairs have a sound other end.
SECOND_PAIRS = 2


def circle(hosts: Sequence[str]) -> list[Round]:
    """Every pair once, in N - 1 rounds (N for an odd number): one host stands still, the others walk round it.

    The circle method of round-robin tournaments (Kirkman 1847). Whoever was client less often is client, so that each
    host measures about as often as it serves.
    """
    ring: list[str | None] = [*hosts, *([None] if len(hosts) % 2 else [])]
    rounds, times = [], Counter[str]()
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        facing = zip(ring[:half], reversed(ring[half:]), strict=True)
        rounds.append(tuple(_turned(a, b, times) for a, b in facing if a is not None and b is not None))
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return [one for one in rounds if one]


def _turned(a: str, b: str, times: Counter[str]) -> Pair:
    client, server = (a, b) if times[a] <= times[b] else (b, a)
    times[client] += 1
    return client, server


def at_random(hosts: Sequence[str], rounds: int, seed: int) -> list[Round]:
    """``rounds`` rounds of random disjoint pairs, no pair twice as far as that goes. The same seed, the same pairs."""
    rng, seen, found = random.Random(seed), set[frozenset[str]](), []
    for _ in range(rounds):
        best: Round = ()
        for _ in range(20):
            order = list(hosts)
            rng.shuffle(order)
            pairs = tuple(zip(order[::2], order[1::2], strict=False))
            fresh = tuple(pair for pair in pairs if frozenset(pair) not in seen)
            best = max(best, fresh, key=len)
        seen |= {frozenset(pair) for pair in best}
        found.append(best)
    return [one for one in found if one]


def suspects(wanted: Mapping[str, int], good: Sequence[str], met: Iterable[Pair] = ()) -> list[Round]:
    """Each suspect against so many sound hosts that it has not met; nobody twice in a round. The sound ones take turns,
    so that none of them is measured mostly against suspects. Fewer where there are not so many sound ones.
    """
    known, turns, left, found = {frozenset(pair) for pair in met}, Counter[str](), dict(wanted), list[Round]()
    while True:
        free, pairs = sorted(good, key=lambda host: turns[host]), []
        for host in (host for host, number in left.items() if number > 0):
            other = next((one for one in free if frozenset((host, one)) not in known), None)
            if other is not None:
                free.remove(other)
                pairs.append((host, other))
                known.add(frozenset((host, other)))
                turns[other] += 1
                left[host] -= 1
        if not pairs:
            return found
        found.append(tuple(pairs))


def second_pass(rounds: Sequence[Round], first: int, accused: Sequence[str], good: Sequence[str]) -> list[Round]:
    """What is still to be added for those whom few pairs accuse. The first ``first`` rounds are those at random; what
    was added behind them before, for the same suspects, counts: a run that goes on adds nothing twice.
    """
    done = Counter(suspect for one in rounds[first:] for suspect, _ in one)
    wanted = {host: SECOND_PAIRS - done[host] for host in accused}
    return suspects(wanted, [host for host in good if host not in wanted], [pair for one in rounds for pair in one])


def schedule(hosts: Sequence[str], mode: str, seed: int = 7) -> list[Round]:
    """``all``, ``random``, ``none``, or ``auto``: all up to `MOST_FOR_ALL` hosts. Raises ValueError."""
    if mode not in ("all", "random", "none", "auto"):
        raise ValueError(f"pairs {mode!r}: must be auto, all, random or none")
    if mode == "none" or len(hosts) < 2:
        return []
    every = mode == "all" or (mode == "auto" and len(hosts) <= MOST_FOR_ALL)
    return circle(hosts) if every else at_random(hosts, RANDOM_ROUNDS, seed)


def ceiling(rounds: Sequence[Round], most: int | None) -> list[Round]:
    """The same pairs with at most ``most`` at once: a wide round is cut into several."""
    if most is None:
        return list(rounds)
    return [one[i : i + most] for one in rounds for i in range(0, len(one), most)]
