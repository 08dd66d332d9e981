"""Two hosts on a cable, as the network's tests have them."""

from tests.probes.network.conftest import cable

__all__ = ["cable"]
