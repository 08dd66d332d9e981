"""``python -m tests.probes.network.brief``: the `bench` command itself, whose quick plan for a peer takes half as
long."""

from __future__ import annotations

from bench.__main__ import main
from bench.model import Effort
from probes.network.plan import PEER_PLANS, NetworkPlan

if __name__ == "__main__":
    PEER_PLANS[Effort.QUICK] = NetworkPlan(2, 2, 1, 1, 1, 160, loaded_packets=300)  # before the probes are imported
    main()
