"""A stand-in for the amdsmi module: its functions' names and answers as in amdsmi 7.0.2, for two cards."""

from __future__ import annotations

from typing import Any


class AmdSmiException(Exception):
    pass


class AmdSmiTemperatureType:
    HOTSPOT, VRAM = 1, 2


class AmdSmiTemperatureMetric:
    CURRENT = 0


class AmdSmiClkType:
    GFX, MEM = 1, 4


class FakeAmdsmi:
    """``answers`` overrides what a function returns; an exception in it is raised."""

    AmdSmiException = AmdSmiException
    AmdSmiTemperatureType = AmdSmiTemperatureType
    AmdSmiTemperatureMetric = AmdSmiTemperatureMetric
    AmdSmiClkType = AmdSmiClkType

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.ticks = 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("amdsmi_"):
            raise AttributeError(name)

        def call(*_: Any) -> Any:
            answer = self.answers.get(name, getattr(self, f"_{name.removeprefix('amdsmi_')}", None))
            if isinstance(answer, Exception):
                raise answer
            return answer() if callable(answer) else answer

        return call

    _init = _shut_down = None
    _get_processor_handles = ("card0", "card1")
    _get_gpu_driver_info = {"driver_version": "6.12.12"}  # noqa: RUF012
    _get_gpu_asic_info = {"market_name": "AMD Instinct MI300X"}  # noqa: RUF012
    _get_gpu_device_uuid = "abcd-1"
    _get_gpu_device_bdf = "0000:05:00.0"
    _get_gpu_vram_usage = {"vram_total": 196_592, "vram_used": 1_000}  # noqa: RUF012
    _get_gpu_activity = {"gfx_activity": 88, "umc_activity": 40, "mm_activity": "N/A"}  # noqa: RUF012
    _get_power_info = {"current_socket_power": 700, "average_socket_power": "N/A"}  # noqa: RUF012
    _get_temp_metric = 61
    _get_clock_info = {"clk": 2100}  # noqa: RUF012
    _get_gpu_total_ecc_count = {"correctable_count": 2, "uncorrectable_count": 0}  # noqa: RUF012
    _get_gpu_process_list = ()
    _get_pcie_info = {  # noqa: RUF012
        "pcie_static": {"max_pcie_width": 16, "max_pcie_speed": 32_000},
        "pcie_metric": {"pcie_width": 16, "pcie_speed": 32_000, "pcie_replay_count": 0},
    }

    def _get_energy_count(self) -> dict[str, float]:
        return {"energy_accumulator": 1_000_000, "counter_resolution": 15.3, "timestamp": 1}

    def _get_violation_status(self) -> dict[str, Any]:
        """Each reading is 1000 ticks later; the socket was too hot in a quarter of them, PPT in all."""
        self.ticks += 1000
        return {
            "acc_counter": self.ticks,
            "acc_ppt_pwr": self.ticks,
            "acc_socket_thrm": self.ticks // 4,
            "acc_prochot_thrm": 0,
            "acc_hbm_thrm": "N/A",
        }
