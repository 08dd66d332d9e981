"""The door to NVML (nvidia-ml-py). pynvml is imported inside of the functions; nothing here lets its errors out."""

from __future__ import annotations

from typing import Any

_DRIVER_REMEDY = "install the NVIDIA driver (https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/)"


class NvmlMissing(Exception):
    """No NVML on this node: the reason, which starts with a machine-readable word, and what mends it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class NvmlBroken(NvmlMissing):
    """NVML is there and should have worked."""


def load() -> Any:
    """pynvml, initialised. Raises NvmlMissing where there is no driver or library, NvmlBroken where it fails."""
    try:
        import pynvml
    except ImportError as error:
        reason = f"nvml_missing: nvidia-ml-py cannot be imported: {error}"
        raise NvmlMissing(reason, "pip install nvidia-ml-py") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound as error:
        reason = "nvml_missing: no libnvidia-ml.so.1: no NVIDIA driver is installed"
        raise NvmlMissing(reason, _DRIVER_REMEDY) from error
    except pynvml.NVMLError_DriverNotLoaded as error:
        reason = "nvml_missing: the NVIDIA driver is installed but not loaded"
        raise NvmlMissing(reason, "modprobe nvidia; dmesg | grep -i nvrm") from error
    except pynvml.NVMLError_LibRmVersionMismatch as error:
        reason = "nvml_broken: the NVIDIA library and the loaded kernel module are of different versions"
        raise NvmlBroken(reason, "reboot, so that the installed driver is loaded") from error
    except pynvml.NVMLError as error:
        raise NvmlBroken(f"nvml_broken: NVML does not start: {error}", "nvidia-smi") from error
    return pynvml


def device_count() -> int:
    """How many cards the driver has, at least one. NVML is loaded. Raises NvmlMissing, NvmlBroken."""
    import pynvml

    try:
        count = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as error:
        raise NvmlBroken(f"nvml_broken: the driver cannot count its GPUs: {error}", "nvidia-smi") from error
    if count == 0:
        raise NvmlMissing("no_gpu: the NVIDIA driver runs but sees no GPU", "lspci | grep -i nvidia")
    return count


def driver_version() -> str | None:
    """The driver's version, or None where no NVIDIA driver answers."""
    try:
        pynvml = load()
    except NvmlMissing:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except (pynvml.NVMLError, ValueError):
        return "of unknown version"
    finally:
        pynvml.nvmlShutdown()
