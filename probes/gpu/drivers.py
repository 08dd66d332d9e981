"""The two ways to a node's cards, NVML and amdsmi, behind one shape. Opened and used on the watcher's thread only."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

from probes._nvml_gpm import Gpm
from probes.common import nvml as _nvml
from probes.common.nvml_card import Card
from probes.gpu import amd as _gpu_amd

_MOST_EVENTS = 1000  # at one sample


class Readable(Protocol):
    """A card's readings as plain data."""

    index: int
    errors: dict[str, str]
    lost: str | None

    def facts(self) -> dict[str, Any]: ...
    def fast(self) -> dict[str, Any]: ...
    def health(self) -> dict[str, Any]: ...


class Door(Protocol):
    """``source`` is the interface's name (nvml, amdsmi), ``driver`` the driver's version."""

    source: str
    driver: str | None
    cards: list[Any]

    def begin(self, card: Readable) -> None:
        """A stage begins: open a pair of the hardware's own counters, where there are any."""
        ...

    def end(self, card: Readable) -> dict[str, float]:
        """Close the innermost pair; its means by name."""
        ...

    def xids(self) -> list[list[int]] | None:
        """[card's index or -1, number] of each critical error since the last call; None where none can be heard."""
        ...

    def close(self) -> None: ...


def open_door() -> Door:
    """NVML where it is, else amdsmi. Raises NvmlMissing where there is neither, NvmlBroken where NVML fails."""
    try:
        return NvmlDoor()
    except _nvml.NvmlBroken:
        raise
    except _nvml.NvmlMissing as error:
        try:
            return AmdDoor()
        except _gpu_amd.AmdMissing:
            raise error from None


class NvmlDoor:
    """NVIDIA cards."""

    source = "nvml"

    def __init__(self) -> None:
        self._nvml, count = _nvml.load(), _nvml.device_count()
        self.driver = _nvml.driver_version()
        self.cards = [Card(self._nvml, index) for index in range(count)]
        self._gpms = {card.index: Gpm(card) for card in self.cards}
        self._events = Events(self._nvml, self.cards)

    def begin(self, card: Readable) -> None:
        self._gpms[card.index].begin()

    def end(self, card: Readable) -> dict[str, float]:
        return self._gpms[card.index].end()

    def xids(self) -> list[list[int]] | None:
        return self._events.take()

    def close(self) -> None:
        for gpm in self._gpms.values():
            gpm.close()
        self._events.close()
        self._nvml.nvmlShutdown()


class AmdDoor:
    """AMD cards. amdsmi has no pair of activity counters and no critical errors as events."""

    source = "amdsmi"

    def __init__(self) -> None:
        self._smi, self.driver, self.cards = _gpu_amd.open_cards()

    def begin(self, card: Readable) -> None:
        return None

    def end(self, card: Readable) -> dict[str, float]:
        return {}

    def xids(self) -> list[list[int]] | None:
        return None

    def close(self) -> None:
        self._smi.amdsmi_shut_down()


def _address(handle: Any) -> int | None:
    """Which card a handle is: NVML gives the same pointer each time."""
    return ctypes.cast(handle, ctypes.c_void_p).value if handle is not None else None


class Events:
    """Xid errors as they happen. Without the event interface there are none to read."""

    def __init__(self, nvml: Any, cards: list[Card]) -> None:
        self._nvml, self._set, self._deaf = nvml, None, False
        self._cards = {_address(card.handle): card.index for card in cards}
        try:
            self._set = nvml.nvmlEventSetCreate()
            for card in (card for card in cards if card.lost is None):
                nvml.nvmlDeviceRegisterEvents(card.handle, nvml.nvmlEventTypeXidCriticalError, self._set)
        except (nvml.NVMLError, AttributeError):
            self._deaf = True

    def take(self) -> list[list[int]] | None:
        """[card's index or -1, Xid] of each since the last call; None where they cannot be heard."""
        if self._deaf:
            return None
        found: list[list[int]] = []
        try:
            while len(found) < _MOST_EVENTS:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                found.append([self._cards.get(_address(event.device), -1), int(event.eventData)])
        except self._nvml.NVMLError_Timeout:
            return found
        except (self._nvml.NVMLError, AttributeError):
            self._deaf = True
        return found

    def close(self) -> None:
        if self._set is not None:
            try:
                self._nvml.nvmlEventSetFree(self._set)
            except self._nvml.NVMLError:
                self._set = None
