"""The door to NVML (nvidia-ml-py). pynvml is imported inside of the functions; nothing here raises its errors."""

from __future__ import annotations

from typing import Any


def load() -> Any:
    """pynvml, initialised. Raises NvmlMissing with the reason where there is no NVIDIA driver or library."""
    try:
        import pynvml
    except ImportError as error:
        reason = f"nvml_missing: nvidia-ml-py cannot be imported: {error}"
        raise NvmlMissing(reason, "pip install nvidia-ml-py") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound as error:
        raise NvmlMissing("nvml_missing: no libnvidia-ml.so.1: no NVIDIA driver is installed", _DRIVER) from error
    except pynvml.NVMLError_DriverNotLoaded as error:
        raise NvmlMissing("nvml_missing: the NVIDIA driver is installed but not loaded", "modprobe nvidia") from error
    except pynvml.NVMLError as error:
        raise NvmlBroken(f"nvml_broken: NVML does not start: {error}", "nvidia-smi") from error
    return pynvml


_DRIVER = "install the NVIDIA driver (https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/)"


class NvmlMissing(Exception):
    """No NVML on this node: the reason and what mends it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class NvmlBroken(NvmlMissing):
    """NVML is there and should have worked."""


def driver_version() -> str | None:
    """The driver's version, or None where no NVIDIA driver answers."""
    try:
        pynvml = load()
    except NvmlMissing:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return "of unknown version"
    finally:
        pynvml.nvmlShutdown()
