"""A Manus glove's ergonomics, from ROS messages or from ZMQ JSON, through one parser.

The vendor's message has no stamp, so a sample is stamped on arrival; which hand it is stands in the
message, not in the topic. A dead glove either stops or repeats its last values for ever, so a message
whose 20 values are those of the one before to the last bit is no news and gives no sample: a frozen
glove is a silent one from its first repetition on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dexpie_ros import config
from dexpie_ros.control.retargeting import ERGONOMICS, canonical_name
from dexpie_ros.devices.device import Backoff, DeviceError, Level, Worker

WAIT_MS = 100
LARGEST = 360.0
"""deg; larger values are no joint angles."""
RECONNECT_AFTER = 2.0
"""s of silence until the subscription is made anew."""


class GloveError(ValueError):
    """A message that is no glove's; says what is wrong with it."""


@config.config
class ManusConfig:
    """One glove."""

    endpoint: str = "tcp://127.0.0.1:8000"
    """ZMQ address of the publisher; not used where ROS messages are offered."""
    side: Literal["left", "right"] = "right"
    frozen_after: float = 0.1
    """s of identical values until the status says frozen; a worn glove never stands still."""

    def __post_init__(self) -> None:
        if not 0.05 <= self.frozen_after <= 60:
            raise ValueError(f"frozen_after = {self.frozen_after}: must lie in 0.05..60")


@dataclass(frozen=True, eq=False)
class GloveSample:
    """One glove's angles in degrees by canonical name, received at ``time_ns`` (ROS time)."""

    time_ns: int
    side: str
    ergonomics: dict[str, float]


def parse_entries(side: Any, entries: Iterable[tuple[Any, Any]]) -> tuple[str, dict[str, float]]:
    """Side and canonical angles from (type, value) pairs; GloveError for anything else.

    Accepts the names of the ROS package (``ThumbMCPSpread``, ``IndexSpread``) and of older
    interfaces (``LeftFingerIndexMCPSpread``). Unknown names are left out; no known one is an error.
    """
    if not isinstance(side, str) or side.lower() not in ("left", "right"):
        raise GloveError(f"side {side!r} is neither left nor right; is the glove paired?")
    hand, values = side.lower(), {}
    for name, value in entries:
        if not isinstance(name, str) or isinstance(value, bool):
            raise GloveError(f"entry {name!r}: {value!r} is no name and number")
        try:
            degrees = float(value)
        except (TypeError, ValueError, OverflowError):
            raise GloveError(f"{name} = {value!r} is no number") from None
        short, of_side = canonical_name(name)
        if short not in ERGONOMICS or (of_side and of_side != hand):
            continue
        if not abs(degrees) <= LARGEST:  # also NaN
            raise GloveError(f"{name} = {degrees}: no angle in degrees")
        values[short] = degrees
    if not values:
        raise GloveError("no ergonomics values; is the glove calibrated in Manus Core?")
    return hand, values


def parse_message(message: Any) -> tuple[str, dict[str, float]]:
    """From a ``manus_ros2_msgs/ManusGlove``; array lengths count, not its count fields."""
    return parse_entries(message.side, ((e.type, e.value) for e in message.ergonomics))


def parse_json(text: bytes | str) -> tuple[str, dict[str, float]]:
    """From ``{"side": ..., "ergonomics": [{"type": ..., "value": ...}]}``."""
    try:
        message = json.loads(text)
        entries = [(entry["type"], entry["value"]) for entry in message["ergonomics"]]
        side = message["side"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GloveError(f"not a glove message: {error!r}") from None
    return parse_entries(side, entries)


class FreezeDetector:
    """Notices values that stay identical."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._values: Mapping[str, float] | None = None
        self._since = 0.0

    def repeated(self, values: Mapping[str, float], now: float) -> bool:
        """Whether ``values``, which came at ``now`` (s), are those that came before."""
        if values == self._values:
            return True
        self._values, self._since = dict(values), now
        return False

    def frozen(self, now: float) -> bool:
        """Whether nothing but the same has come for longer than ``after`` s."""
        return self._values is not None and now - self._since > self._after


class ManusGlove(Worker[GloveSample]):
    """One glove over ZMQ; see :mod:`dexpie_ros.devices` for the common shape.

    Where the vendor's ROS package is used, do not start it but hand its messages to :meth:`offer`.
    """

    def __init__(
        self, settings: ManusConfig, name: str = "glove", backoff: Backoff | None = None
    ) -> None:
        super().__init__(name, stale_after=0.2, backoff=backoff or Backoff(0.1, 1.0))
        self._config = settings
        self._freeze = FreezeDetector(settings.frozen_after)
        self._frozen = False
        self._error = ""
        self._socket: Any = None
        self.malformed = 0
        """Messages that were no glove's."""
        self.other_side = 0
        """Messages of the other hand's glove."""

    def offer(self, message: Any, time_ns: int | None = None) -> GloveSample | None:
        """Take a ROS message; the sample, or None where it is not used. Never raises for content."""
        self._connected = True
        try:
            side, values = parse_message(message)
        except GloveError as error:
            self._malformed(error)
            return None
        except (AttributeError, TypeError) as error:
            self._malformed(GloveError(f"not a ManusGlove message: {error}"))
            return None
        return self._take(side, values, time_ns)

    def _malformed(self, error: GloveError) -> None:
        self.malformed += 1
        self._error = str(error)

    def _take(
        self, side: str, values: dict[str, float], time_ns: int | None = None
    ) -> GloveSample | None:
        if side != self._config.side:
            self.other_side += 1
            return None
        self._error = ""
        now = time.monotonic()
        repeated = self._freeze.repeated(values, now)
        self._frozen = repeated and self._freeze.frozen(now)
        if repeated:
            return None
        sample = GloveSample(time.time_ns() if time_ns is None else time_ns, side, values)
        self.samples.put(sample)
        return sample

    def _open(self) -> None:
        try:
            import zmq
        except ImportError as error:
            raise DeviceError(
                f"pyzmq is not installed ({error}); pip install 'dexpie_ros[hardware]'"
            ) from None
        self._zmq = zmq
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 16)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"manus_glove_")
        try:
            self._socket.connect(self._config.endpoint)
        except zmq.ZMQError as error:
            raise DeviceError(f"glove endpoint {self._config.endpoint!r}: {error}") from None
        self._heard = time.monotonic()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._context.term()
            self._socket = None

    def _cycle(self) -> None:
        if not self._socket.poll(WAIT_MS):
            silence = time.monotonic() - self._heard
            if silence > RECONNECT_AFTER:
                raise DeviceError(
                    f"no glove data at {self._config.endpoint} for {silence:.1f} s; is the Manus "
                    "publisher running and the dongle plugged in?"
                )
            return
        self._heard = time.monotonic()
        parts = self._socket.recv_multipart(self._zmq.NOBLOCK)
        try:
            if len(parts) != 2:
                raise GloveError(f"{len(parts)} parts instead of topic and JSON")
            side, values = parse_json(parts[1])
        except GloveError as error:
            self._malformed(error)
            return
        self._take(side, values)

    def _stale_message(self, age: str) -> str:
        if self._frozen:
            return (
                f"the {self._config.side} glove is frozen: identical values for more than "
                f"{self._config.frozen_after} s; turn it off and on"
            )
        if self._error:
            return f"no usable glove data for {age} s: {self._error}"
        if self.other_side and self.samples.count == 0:
            return f"only the other hand's glove sends; the {self._config.side} one is wanted"
        return super()._stale_message(age)

    def _values(self) -> dict[str, str]:
        sample = self.newest()
        return {
            "side": self._config.side,
            "malformed": str(self.malformed),
            "other_side": str(self.other_side),
            "frozen": str(self._frozen).lower(),
            "values": str(0 if sample is None else len(sample.ergonomics)),
        }

    def _health(self) -> tuple[Level, str]:
        sample = self.newest()
        assert sample is not None  # the worker asks only when there is a fresh one
        if len(sample.ergonomics) < len(ERGONOMICS):
            missing = [name for name in ERGONOMICS if name not in sample.ergonomics]
            return Level.WARN, f"missing: {', '.join(missing)}"
        if not any(math.fabs(value) > 1e-6 for value in sample.ergonomics.values()):
            return Level.WARN, "all angles are zero; calibrate the glove in Manus Core"
        return Level.OK, "ok"
