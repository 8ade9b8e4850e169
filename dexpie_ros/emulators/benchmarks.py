"""How fast the drivers run, each over its real client library against its emulator.

    python -m dexpie_ros.emulators.benchmarks arm hand camera tracker glove --seconds 10

Figures, not tests: a busy machine may make them anything.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.devices.arm_limits import ArmLimits
from dexpie_ros.devices.device import DeviceError, Worker, wait_until
from dexpie_ros.devices.inspire_hand import InspireConfig, InspireHand
from dexpie_ros.devices.manus_glove import ManusConfig, ManusGlove
from dexpie_ros.devices.realsense import RealSense, RealSenseConfig
from dexpie_ros.devices.realsense_discovery import RemoteDiscovery
from dexpie_ros.devices.ur5 import Ur5, Ur5Config
from dexpie_ros.devices.vive_tracker import ViveConfig, vive_tracker
from dexpie_ros.emulators.peer import Emulator
from dexpie_ros.geometry import Pose
from dexpie_ros.realtime import preferred_process

START_TIMEOUT = 20.0


def arm(
    seconds: float, host: str = "127.0.0.90", model: Literal["ur5", "ur5e"] = "ur5"
) -> dict[str, float]:
    """State rate, missed cycles and tracking error of a circle commanded at 25 Hz.

    ``robot_hz`` is what the emulator itself got done: a controller has a computer of its own, and
    where this one is too busy to stand in for it, the other figures say nothing.
    """
    with (
        preferred_process() as scheduling,  # like arm_driver, in whose place this process stands
        Emulator("ur5", "--host", host, "--model", model) as robot,
    ):
        limits = ArmLimits(workspace_low=(-0.9, -0.9, -0.1))
        device = Ur5(Ur5Config(host=host, model=model, limits=limits))
        device.start()
        _await(lambda: device.ready, device)
        start = device.newest()
        assert start is not None
        step, radius, turns = STEP_NS * 1e-9, 0.03, 0.25
        count, gaps, began = device.samples.count, [], time.monotonic()
        since, states = robot.ask("time"), _States(device)
        states.start()
        for tick in range(round(seconds / step)):
            phase = 2 * math.pi * turns * (tick + 1) * step
            offset = np.array([math.cos(phase) - 1, math.sin(phase), 0.0]) * radius
            device.command(Pose(start.target.position + offset, start.target.quaternion))
            time.sleep(max(0.0, began + (tick + 1) * step - time.monotonic()))
            newest = device.newest()
            assert newest is not None
            gaps.append(float(np.linalg.norm(newest.tcp.position - newest.target.position)))
        last = device.newest()
        assert last is not None
        elapsed = (last.time_ns - start.time_ns) * 1e-9
        states.stop()
        robot_hz = len(robot.ask("trace", since_ns=since)) / (time.monotonic() - began)
        device.stop()
        uploads = robot.ask("state")["uploads"]
    return {
        "realtime": float(scheduling == "fifo"),
        "robot_hz": robot_hz,
        **states.figures(),
        "state_hz": (device.samples.count - count) / elapsed,
        "cycle_hz": (last.cycles - start.cycles) / elapsed,
        "missed_cycles": last.missed - start.missed,
        "refused": last.refused - start.refused,
        "lag_ms_median": float(np.median(gaps[10:]) / (2 * math.pi * turns * radius) * 1e3),
        "losses": device.losses,
        "uploads": uploads,
    }


class _States(threading.Thread):
    """Notes when each state was taken by the controller and when it came here."""

    def __init__(self, device: Ur5) -> None:
        super().__init__(name="states")
        self._device, self._stopping = device, threading.Event()
        self._times: list[tuple[float, float]] = []
        """Controller's clock and from capture to arrival, s."""

    def run(self) -> None:
        seen = self._device.samples.count
        while not self._stopping.is_set():
            sample = self._device.wait(seen, 0.1)
            if sample is not None:
                seen = self._device.samples.count
                age = (time.time_ns() - sample.time_ns) * 1e-9
                self._times.append((sample.robot_time, age))

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def figures(self) -> dict[str, float]:
        """Intervals between the states that came, by the controller's clock, and their ages; ms."""
        times = np.array(self._times) * 1e3
        intervals = np.diff(times[:, 0])
        return {
            "interval_ms_p99": float(np.percentile(intervals, 99)),
            "interval_ms_max": float(intervals.max()),
            "age_ms_p50": float(np.median(times[:, 1])),
            "age_ms_p99": float(np.percentile(times[:, 1], 99)),
        }


def hand(seconds: float) -> dict[str, float]:
    """Samples per second on each transport, asked for as fast as the line allows."""
    figures = {}
    with Emulator("inspire", "--host", "127.0.0.1", "--port", "0") as emulator:
        ready = emulator.ready
        for transport in ("modbus_tcp", "modbus_rtu", "eb90"):
            settings = InspireConfig(
                transport=transport, host=ready["host"], port=ready["port"], rate_hz=500.0,
                device=ready["eb90" if transport == "eb90" else "rtu"],
            )  # fmt: skip
            figures[f"{transport}_hz"] = _rate(InspireHand(settings), seconds)
    return figures


def camera(seconds: float) -> dict[str, float]:
    """Frames per second at 640x480 and 60 Hz, lost ones, and from capture to the sample in ms."""
    with Emulator("realsense", "--port", "0") as emulator:
        ready = emulator.ready
        device = RealSense(
            RealSenseConfig(serial=ready["serial"]),
            discovery=RemoteDiscovery(ready["host"], ready["port"]),
        )
        device.start()
        _await(lambda: device.samples.count > 5, device)
        count, began, delays = device.samples.count, time.monotonic(), []
        first, dropped = count, device.dropped
        while time.monotonic() - began < seconds:
            sample = device.wait(count, 1.0)
            count = device.samples.count
            if sample is not None:
                delays.append((time.time_ns() - sample.time_ns) * 1e-6)
        elapsed = time.monotonic() - began
        device.stop()
    return {
        "frames_hz": (count - first) / elapsed,
        "dropped": device.dropped - dropped,
        "delay_ms_median": float(np.median(delays)),
        "delay_ms_p99": float(np.percentile(delays, 99)),
    }


def tracker(seconds: float) -> dict[str, float]:
    """Poses per second at a nominal 120 Hz."""
    with Emulator("vive") as emulator:
        settings = ViveConfig(
            serial=emulator.ready["serials"][0], path_registry=emulator.ready["path_registry"]
        )
        return {"poses_hz": _rate(vive_tracker(settings), seconds)}


def glove(seconds: float) -> dict[str, float]:
    """Samples per second at a nominal 120 Hz."""
    with Emulator("manus", "--port", "0") as emulator:
        device = ManusGlove(ManusConfig(endpoint=emulator.ready["endpoint"]))
        return {"samples_hz": _rate(device, seconds)}


BENCHMARKS: dict[str, Callable[[float], dict[str, float]]] = {
    "arm": arm, "hand": hand, "camera": camera, "tracker": tracker, "glove": glove,
}  # fmt: skip


def _await(condition: Callable[[], bool], device: Any) -> None:
    if not wait_until(condition, START_TIMEOUT):
        message = device.status().message
        device.stop()
        raise DeviceError(f"{device.name}: not ready after {START_TIMEOUT} s: {message}")


def _rate(device: Worker[Any], seconds: float) -> float:
    device.start()
    _await(lambda: device.samples.count > 2, device)
    count, began = device.samples.count, time.monotonic()
    time.sleep(seconds)
    rate = (device.samples.count - count) / (time.monotonic() - began)
    device.stop()
    return rate


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Rates of the device drivers over emulators")
    parser.add_argument("devices", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all without")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args(argv)
    unknown = set(arguments.devices) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark for {', '.join(sorted(unknown))}")
    for name in arguments.devices or BENCHMARKS:
        used = time.process_time()
        figures = BENCHMARKS[name](arguments.seconds)
        figures["cpu_s"] = time.process_time() - used
        figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"device": name} | {k: round(v, 3) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
