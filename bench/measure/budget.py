"""How long a run may take, by effort, and how much of it is whose: the one table, in seconds on the wall.

A run is asked for one directory and at most one peer; each further one has its own share beside that. What is not in
the table (starting, waiting for a quiet node, calming down between two probes) takes up to 25 s of a standard run. What
is then left goes into further rounds of what did not decide (`bench.measure.runner`).
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.model import Effort, Request

Seconds = Mapping[Effort, float]


def _row(quick: float, standard: float, thorough: float) -> Seconds:
    return {Effort.QUICK: quick, Effort.STANDARD: standard, Effort.THOROUGH: thorough}


#: A whole run, further rounds included; and how much longer it may be with a peer, by TCP or RDMA. Standard holds for
#: up to eight cards; a quick run of several takes as much longer as they take beside each other (`BESIDE`).
WHOLE, WHOLE_WITH_PEER = _row(75, 300, 3600), _row(100, 300, 3600)
#: Of each --storage directory.
STORAGE, FEED = _row(17, 40, 300), _row(21, 62, 600)
#: Of one card; and of a node's cards beside each other, where there are several.
INFERENCE, CARDS = _row(13, 36, 240), _row(10, 11, 120)
#: Beside the last that a card has of the two: products whose values are compared, while clocks and heat are watched.
SOAK = _row(1, 4, 20)
#: Of several cards: `CARDS`, the soak of all of them, and the start of torch in each.
BESIDE = _row(19, 25, 150)
#: Against the loopback, and against each --peer.
LOOPBACK, NETWORK = _row(11, 18, 18), _row(30, 73, 620)
RDMA = _row(5, 8, 150)
#: Between the GPUs of a node, and of each --peer.
RANKS, COLLECTIVE = _row(8, 10, 60), _row(8, 15, 180)
#: Of all data sets together.
DATA = _row(15, 40, 600)
#: Of a server that was named, in the place of what would load its cards.
ENDPOINT = _row(45, 150, 600)
#: Of all services together: each has its own rate, beside the others.
SERVICE = _row(55, 95, 820)
NONE = _row(0, 0, 0)


def whole_seconds(request: Request, planned: float, planned_for_one: float) -> float:
    """The effort's time for a request: as much longer than with one directory and one peer as its probes take longer.

    ``planned`` and ``planned_for_one``: the probes' seconds for the request, and with one directory and one peer of it.
    """
    whole = WHOLE_WITH_PEER if request.peers else WHOLE
    return whole[request.effort] + max(0.0, planned - planned_for_one)
