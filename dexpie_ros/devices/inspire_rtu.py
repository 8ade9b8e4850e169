"""A Modbus RTU client whose timeout is one of the whole transaction.

pymodbus waits its timeout anew for more behind every piece of an answer, and a garbled answer is such
a piece: on a noisy line each attempt would take as long again, and the arm holds that much later.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymodbus.client import ModbusSerialClient


@cache
def punctual_serial_client() -> type[ModbusSerialClient]:
    """The client's class; pymodbus is imported here, when a hand on a serial line is used."""
    from pymodbus.client import ModbusSerialClient

    class PunctualSerialClient(ModbusSerialClient):
        """What has not come ``timeout`` s after the request does not count."""

        _asked = 0.0

        def send(self, request: bytes, addr: tuple[str, int] | None = None) -> int:
            """Bytes written; from now on the answer is waited for."""
            self._asked = time.monotonic()
            return int(super().send(request, addr))

        def recv(self, size: int | None) -> bytes:
            """What has come, b"" once the time is over."""
            whole: float = self.comm_params.timeout_connect
            left = self._asked + whole - time.monotonic()
            if left <= 0:
                return b""
            self.comm_params.timeout_connect = left
            try:
                return bytes(super().recv(size))
            finally:
                self.comm_params.timeout_connect = whole

    return PunctualSerialClient
