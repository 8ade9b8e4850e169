"""Collects the parts of an observation by stamp, without ROS."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.control.types import Observation, RobotState
from dexpie_ros.geometry import Pose

KEEP = 8
"""Stamps kept per stream; older ones can no longer be asked for."""

ReadRobot = Callable[[Any, Any, Any], RobotState]


class ObservationBuffer:
    """The newest parts of each stream; :meth:`at` in lockstep, :meth:`newest` on a robot.

    May be used from several threads: an inference reads while the executor goes on hearing.
    """

    def __init__(self, needs_objects: bool, cameras: Sequence[str] = ()) -> None:
        self._cameras = tuple(cameras)
        names = ["arm", "hand", "tcp", *(["objects"] if needs_objects else []), *self._cameras]
        self._streams: dict[str, OrderedDict[int, Any]] = {name: OrderedDict() for name in names}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all: a new episode must not start from the old scene."""
        with self._lock:
            for stream in self._streams.values():
                stream.clear()

    def measured(self, stream: str, time_ns: int, message: Any) -> None:
        self._put(stream, time_ns, message)

    def objects(self, time_ns: int, objects: dict[str, Pose]) -> None:
        self._put("objects", time_ns, objects)

    def image(self, camera: str, time_ns: int, rgb: NDArray[np.uint8]) -> None:
        self._put(camera, time_ns, rgb)

    def missing(self) -> str:
        """Streams of which nothing has arrived yet."""
        with self._lock:
            return ", ".join(name for name, stream in self._streams.items() if not stream)

    def older_than(self, time_ns: int) -> str:
        """Streams whose newest part was captured before ``time_ns``, or that never came."""
        with self._lock:
            return ", ".join(
                name
                for name, stream in self._streams.items()
                if not stream or next(reversed(stream)) < time_ns
            )

    def at(self, time_ns: int, read_robot: ReadRobot) -> Observation | None:
        """The observation captured exactly at ``time_ns``; None while a part is missing."""
        with self._lock:
            if any(time_ns not in stream for stream in self._streams.values()):
                return None
            parts = {name: stream[time_ns] for name, stream in self._streams.items()}
        return self._make(parts, read_robot)

    def newest(self, read_robot: ReadRobot) -> Observation | None:
        """The newest of every stream; None while a stream is empty."""
        with self._lock:
            if any(not stream for stream in self._streams.values()):
                return None
            parts = {
                name: next(reversed(stream.values())) for name, stream in self._streams.items()
            }
        return self._make(parts, read_robot)

    def _put(self, name: str, time_ns: int, value: Any) -> None:
        with self._lock:
            stream = self._streams[name]
            stream[time_ns] = value
            while len(stream) > KEEP:
                stream.popitem(last=False)

    def _make(self, parts: dict[str, Any], read_robot: ReadRobot) -> Observation:
        robot = read_robot(parts["arm"], parts["tcp"], parts["hand"])
        return Observation(
            time_ns=robot.time_ns,
            robot=robot,
            objects=parts.get("objects", {}),
            images={camera: parts[camera] for camera in self._cameras},
        )
