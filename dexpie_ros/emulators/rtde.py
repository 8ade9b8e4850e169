"""The controller's side of RTDE version 2: frames, recipes and one session per client.

Frame: uint16 size (header included), uint8 type, payload; everything big-endian.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Any

DOUBLE, VECTOR3D, VECTOR6D = "DOUBLE", "VECTOR3D", "VECTOR6D"
INT32, UINT32, UINT64, UINT8 = "INT32", "UINT32", "UINT64", "UINT8"
VECTOR6INT32 = "VECTOR6INT32"
FORMATS = {
    DOUBLE: ">d", VECTOR3D: ">3d", VECTOR6D: ">6d", INT32: ">i", UINT32: ">I", UINT64: ">Q",
    UINT8: ">B", VECTOR6INT32: ">6i",
}  # fmt: skip
MAX_RECIPES = 255


def _names(kind: str, text: str) -> dict[str, str]:
    return dict.fromkeys(text.split(), kind)


OUTPUTS = {
    **_names(VECTOR6D, """target_q target_qd target_qdd target_current target_moment actual_q
        actual_qd actual_current joint_control_output actual_TCP_pose actual_TCP_speed
        actual_TCP_force target_TCP_pose target_TCP_speed joint_temperatures actual_joint_voltage
        ft_raw_wrench payload_inertia"""),
    **_names(DOUBLE, """timestamp actual_execution_time speed_scaling target_speed_fraction
        actual_momentum actual_main_voltage actual_robot_voltage actual_robot_current
        standard_analog_input0 standard_analog_input1 standard_analog_output0
        standard_analog_output1 payload"""),
    **_names(UINT64, "actual_digital_input_bits actual_digital_output_bits"),
    **_names(INT32, "robot_mode safety_mode"),
    **_names(VECTOR6INT32, "joint_mode"),
    **_names(UINT32, "runtime_state robot_status_bits safety_status_bits"),
    **_names(VECTOR3D, "actual_tool_accelerometer payload_cog"),
    **{f"output_int_register_{i}": INT32 for i in range(48)},
    **{f"output_double_register_{i}": DOUBLE for i in range(48)},
}  # fmt: skip
INPUTS = {
    **{f"input_int_register_{i}": INT32 for i in range(48)},
    **{f"input_double_register_{i}": DOUBLE for i in range(48)},
    **_names(UINT32, "speed_slider_mask"),
    **_names(DOUBLE, "speed_slider_fraction standard_analog_output_0 standard_analog_output_1"),
    **_names(VECTOR6D, "external_force_torque"),
    **_names(UINT8, """standard_digital_output_mask standard_digital_output
        tool_digital_output_mask tool_digital_output configurable_digital_output_mask
        configurable_digital_output standard_analog_output_mask standard_analog_output_type"""),
}  # fmt: skip


class RtdeError(ValueError):
    """A frame that breaks the protocol; the session is closed, as a controller does."""


def frame(kind: str, payload: bytes) -> bytes:
    return struct.pack(">HB", len(payload) + 3, ord(kind)) + payload


def split_names(payload: bytes) -> list[str]:
    """Comma list of names; ur_rtde ends it with a comma."""
    try:
        return [name for name in payload.decode("ascii").split(",") if name]
    except UnicodeDecodeError as error:
        raise RtdeError(f"names are not ASCII: {error}") from None


class Session:
    """One client: its recipes and whether it wants data. Pure: bytes in, bytes out."""

    def __init__(
        self,
        version: tuple[int, int, int, int],
        frequency: float,
        on_inputs: Callable[[dict[str, Any]], None],
        inputs_in_use: Callable[[], bool],
    ) -> None:
        self._version, self._on_inputs, self._inputs_in_use = version, on_inputs, inputs_in_use
        self.frequency = frequency
        self.started = False
        self.outputs: list[str] = []
        self._inputs: dict[int, list[str]] = {}

    def handle(self, kind: str, payload: bytes) -> bytes:
        """The reply frame (may be empty) to one frame; RtdeError for a broken one."""
        if kind == "V":
            return frame("V", bytes([payload == b"\0\2"]))
        if kind == "v":
            return frame("v", struct.pack(">4I", *self._version))
        if kind == "O":
            return self._set_outputs(payload)
        if kind == "I":
            return self._set_inputs(payload)
        if kind in "SP":
            self.started = kind == "S"
            return frame(kind, b"\1")
        if kind == "U":
            self._on_inputs(self._decode_inputs(payload))
            return b""
        raise RtdeError(f"unknown frame type {kind!r}")

    def _set_outputs(self, payload: bytes) -> bytes:
        if len(payload) < 8:
            raise RtdeError("output set-up without a frequency")
        (frequency,) = struct.unpack_from(">d", payload)
        if not 0 < frequency <= 1000:
            raise RtdeError(f"output frequency {frequency}")
        names = split_names(payload[8:])
        kinds = [OUTPUTS.get(name, "NOT_FOUND") for name in names]
        known = "NOT_FOUND" not in kinds and bool(kinds)
        self.frequency, self.outputs = frequency, names if known else []
        return frame("O", bytes([known]) + ",".join(kinds).encode())

    def _set_inputs(self, payload: bytes) -> bytes:
        names = split_names(payload)
        kinds = [INPUTS.get(name, "NOT_FOUND") for name in names]
        if self._inputs_in_use():
            kinds = ["IN_USE"] * len(names)
        number = 0
        if kinds and not {"IN_USE", "NOT_FOUND"} & set(kinds) and len(self._inputs) < MAX_RECIPES:
            number = len(self._inputs) + 1
            self._inputs[number] = names
        return frame("I", bytes([number]) + ",".join(kinds).encode())

    def _decode_inputs(self, payload: bytes) -> dict[str, Any]:
        names = self._inputs.get(payload[0]) if payload else None
        if names is None:
            raise RtdeError("data for a recipe that was never set up")
        values: dict[str, Any] = {}
        offset = 1
        for name in names:
            layout = FORMATS[INPUTS[name]]
            try:
                items = struct.unpack_from(layout, payload, offset)
            except struct.error:
                raise RtdeError(f"data packet too short for recipe {payload[0]}") from None
            values[name] = items[0] if len(items) == 1 else items
            offset += struct.calcsize(layout)
        if offset != len(payload):
            raise RtdeError(f"data packet too long for recipe {payload[0]}")
        return values

    def data(self, state: Mapping[str, Any]) -> bytes:
        """One data frame with this client's outputs; what the robot does not know is zero."""
        body = bytearray([1])
        for name in self.outputs:
            layout = FORMATS[OUTPUTS[name]]
            value = state.get(name, 0)
            if layout[1].isdigit():
                items = [0] * int(layout[1]) if isinstance(value, int) else value
                body += struct.pack(layout, *items)
            else:
                body += struct.pack(layout, value)
        return frame("U", bytes(body))


async def read_frame(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The next frame; RtdeError for an impossible size, IncompleteReadError at the end."""
    size, kind = struct.unpack(">HB", await reader.readexactly(3))
    if size < 3:
        raise RtdeError(f"frame of size {size}")
    return chr(kind), await reader.readexactly(size - 3)
