"""`dexpie calibrate glove|tracker|hand`: measure with the device itself, store as YAML.

No ROS: stop the stack's driver of the device first. Addresses come from the cell's ROS parameter
file, the same that `dexpie launch ... parameters:=` takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dexpie_ros.devices.device import Worker
    from dexpie_ros.geometry import Array

CONNECT_S = 10.0
HOLD_S = 2.0
STILL_S = 0.5
HAND_TRAVEL_S = 2.0
"""s that the hand has for opening or closing before it is measured."""

Ask = Callable[[str], object]


def add_parser(groups: argparse._SubParsersAction, glove_of: Any = None) -> None:
    """Hook the commands into `dexpie`. ``glove_of``: see :func:`calibrate_glove`."""
    parser = groups.add_parser("calibrate", help="glove, tracker mounting, range of the hand")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, run, text in (
        (
            "glove",
            partial(calibrate_glove, glove_of=glove_of),
            "open hand, then a fist with the thumb across the palm",
        ),
        ("tracker", calibrate_tracker, "turn the hand about the end effector's x and z axes"),
        ("hand", calibrate_hand, "opens and closes the robot's hand; keep it empty and clear"),
    ):
        action = kinds.add_parser(kind, help=text)
        action.add_argument(
            "--parameters", type=Path, default=None, help="ROS parameter file with the addresses"
        )
        action.add_argument(
            "--output", type=Path, default=Path("calibration"), metavar="FOLDER",
            help="gets <kind>.yaml; give it to the stack as calibration:=FOLDER",
        )  # fmt: skip
        action.set_defaults(run=_runner(run))


def _runner(
    run: Callable[[Path | None, Path, Ask], Path],
) -> Callable[[argparse.Namespace], int]:
    def command(options: argparse.Namespace) -> int:
        try:
            file = run(options.parameters, options.output, input)
        except EOFError:
            print("interrupted: nothing was stored")
            return 1
        print(f"stored {file}; use it with calibration:={options.output}")
        return 0

    return command


def calibrate_glove(parameters: Path | None, folder: Path, ask: Ask, glove_of: Any = None) -> Path:
    """Reference angles of the operator's glove. ``ask`` shows a prompt and waits for the person.

    ``glove_of`` makes the glove from the driver's parameters; without it the glove speaks ZMQ.
    """
    from dexpie_ros.devices import calibration
    from dexpie_ros.devices.driver_parameters import GloveDriverParameters, read
    from dexpie_ros.devices.manus_glove import ManusGlove

    driver = read(parameters, "glove_driver", GloveDriverParameters)
    made = glove_of(driver) if glove_of is not None else ManusGlove(driver.glove)
    with _Running(made) as glove:
        poses = []
        for pose in ("flat open hand, fingers together", "fist with the thumb across the palm"):
            ask(f"{pose}: hold it still, then press Enter ")
            poses.append([sample.ergonomics for sample in _collect(glove, HOLD_S)])
    found = calibration.calibrate_glove(*poses)
    return _store(folder, "glove", driver.glove.side, found)


def calibrate_tracker(parameters: Path | None, folder: Path, ask: Ask) -> Path:
    """How the Vive tracker or the ArUco cube sits on the operator's hand.

    The cube is judged by two or more visible faces, so it must stay in view in all three poses.
    """
    from dexpie_ros.devices import calibration

    device, tracker_of = _tracker(parameters)
    with _Running(tracker_of) as tracker:
        poses: list[Array] = []
        for what in (
            "hand as the end effector is, all axes parallel",
            "turned by +90 degrees about the end effector's x axis",
            "back again, then turned by +90 degrees about its z axis",
        ):
            ask(f"{what}: hold it still, then press Enter ")
            samples = [sample.pose.matrix() for sample in _collect(tracker, STILL_S)]
            poses.append(calibration.still_pose(samples, what))
    return _store(folder, "tracker", device, calibration.calibrate_tracker(*poses))


def _tracker(parameters: Path | None) -> tuple[str, Worker[Any]]:
    """What the calibration is for, and the tracker of the cell."""
    from dexpie_ros.devices.driver_parameters import (
        CameraDriverParameters,
        TrackerDriverParameters,
        read,
    )

    settings = read(parameters, "tracker_driver", TrackerDriverParameters)
    if settings.tracker == "vive":
        from dexpie_ros.devices.vive_tracker import vive_tracker

        return settings.device, vive_tracker(settings.vive)
    from dexpie_ros.devices.probe import cube_of

    camera = read(parameters, f"camera_{settings.camera}", CameraDriverParameters)
    return settings.device, cube_of(settings, camera)


def calibrate_hand(parameters: Path | None, folder: Path, ask: Ask) -> Path:
    """The range of each finger of the robot's hand; moves it."""
    import numpy as np

    from dexpie_ros.devices import calibration
    from dexpie_ros.devices.driver_parameters import HandDriverParameters, read
    from dexpie_ros.devices.inspire_hand import InspireHand

    settings = read(parameters, "hand_driver", HandDriverParameters).hand
    with _Running(InspireHand(settings)) as hand:
        ask("the hand opens and closes fully: is it empty and clear? then press Enter ")
        measured = []
        for opening in (1.0, 0.0):
            end = time.monotonic() + HAND_TRAVEL_S
            while time.monotonic() < end:
                hand.command(np.full(6, opening))
                time.sleep(0.1)
            samples = _collect(hand, 0.5)
            measured.append([hand.raw_angles_of(sample) for sample in samples])
        hand.command(np.ones(6))
        time.sleep(0.2)
    return _store(folder, "hand", settings.where, calibration.calibrate_hand(*measured))


class _Running:
    """A device that runs inside the block; DeviceError where it does not come up."""

    def __init__(self, device: Worker[Any]) -> None:
        self._device = device

    def __enter__(self) -> Any:
        from dexpie_ros.devices.device import DeviceError, wait_until

        self._device.start()
        if not wait_until(lambda: self._device.newest() is not None, CONNECT_S, 0.05):
            status = self._device.status()
            self._device.stop()
            raise DeviceError(f"{status.device}: {status.message}")
        return self._device

    def __exit__(self, *_: object) -> None:
        self._device.stop()


def _collect(device: Worker[Any], seconds: float) -> list[Any]:
    """Samples from now on; DeviceError where there is none."""
    from dexpie_ros.devices.device import DeviceError

    samples, seen = [], device.samples.count
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sample = device.wait(seen, left)
        if sample is not None:
            seen = device.samples.count
            samples.append(sample)
    if not samples:
        raise DeviceError(f"{device.name}: {device.status().message}")
    return samples


def _store(folder: Path, kind: Any, device: str, values: Any) -> Path:
    from dexpie_ros.devices import calibration

    file = folder / f"{kind}.yaml"
    calibration.save(file, kind, device, values)
    return file
