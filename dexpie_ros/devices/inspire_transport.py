"""Three ways to an Inspire hand's registers: Modbus TCP, Modbus RTU and the EB90 protocol.

RH56DFX hands speak EB90 or Modbus RTU over RS-485 (which one differs by delivery), newer ones
Modbus TCP. All carry the same byte-addressed registers, so all are one interface here.
"""

from __future__ import annotations

import contextlib
import logging
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from dexpie_ros.devices import inspire_eb90 as eb90
from dexpie_ros.devices.device import DeviceError

CONNECT_S = 0.5
"""For a TCP connection, which may begin with a question for the hand's address."""
NETWORK_S = 0.02
"""For one transaction over TCP, unless it is set."""
THINKING_S = 0.012
"""For one transaction on a serial line beside the bytes' own time, unless it is set: twice the 6 ms
that were measured on hands."""
LONGEST = 30
"""Bytes of a request and its reply, on a serial line: six shorts with both frames around them."""


def line_timeout(baudrate: int, latency_s: float = 0.0) -> float:
    """s that a transaction may take on a serial line (8N1) whose adapter holds bytes back so long."""
    return LONGEST * 10 / baudrate + THINKING_S + latency_s


def prefer_latency(port: Any, device: str, sysfs: str = "/sys/class/tty") -> float:
    """Ask a serial adapter to pass bytes on at once; s that it holds them back all the same.

    FTDI adapters do so for 16 ms unless told; others know no such thing.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError, termios.error):
        port.set_low_latency_mode(True)
    try:
        timer = Path(sysfs, Path(device).resolve().name, "device", "latency_timer")
        return float(timer.read_text()) * 1e-3
    except (OSError, ValueError):
        return 0.0


class NoAnswer(DeviceError):
    """One transaction failed (silence, broken or refused reply); the line may be fine."""


class Transport(Protocol):
    """Reads and writes bytes of the hand's memory. DeviceError when the line is gone."""

    timeout: float
    """s for one transaction, once the line is open."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self, address: int, size: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...


class ModbusTransport:
    """Holding registers over pymodbus, TCP or RTU: start = byte address, count = words."""

    def __init__(
        self,
        where: str,
        unit: int,
        make_client: Callable[[], Any],
        timeout: Callable[[Any], float],
    ) -> None:
        """``timeout`` of a transaction, asked of the connected client."""
        self._where, self._unit, self._make_client = where, unit, make_client
        self._timeout, self.timeout = timeout, 0.0
        self._client: Any = None

    def open(self) -> None:
        # At its default level pymodbus logs every lost transaction; the status tells them better.
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        self._client = self._make_client()
        with self._errors("connect"):
            if not self._client.connect():
                raise DeviceError(f"hand at {self._where}: no connection; check power and wiring")
            # pymodbus has one number for both, whatever its name
            self.timeout = self._client.comm_params.timeout_connect = self._timeout(self._client)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def read(self, address: int, size: int) -> bytes:
        words = (size + 1) // 2
        with self._errors("read", address):
            reply = self._client.read_holding_registers(address, count=words, device_id=self._unit)
        self._check(reply, "read", address)
        # RTU replies name no address: one that comes late is told by its length alone
        if len(reply.registers) != words:
            raise NoAnswer(f"hand at {self._where}: {len(reply.registers)} of {words} words came")
        return b"".join(word.to_bytes(2, "little") for word in reply.registers)[:size]

    def write(self, address: int, data: bytes) -> None:
        padded = data + bytes(len(data) % 2)
        words = [int.from_bytes(padded[i : i + 2], "little") for i in range(0, len(padded), 2)]
        with self._errors("write", address):
            reply = self._client.write_registers(address, words, device_id=self._unit)
        self._check(reply, "write", address)
        if (reply.address, reply.count) != (address, len(words)):
            raise NoAnswer(f"hand at {self._where}: write of {address}: another one's answer came")

    def _check(self, reply: Any, what: str, address: int) -> None:
        if reply.isError():
            raise NoAnswer(f"hand at {self._where}: {what} of {address} refused: {reply}")

    @contextlib.contextmanager
    def _errors(self, what: str, address: int = 0) -> Iterator[None]:
        from pymodbus.exceptions import ConnectionException, ModbusException

        place = f"hand at {self._where}: {what} of {address}"
        try:
            yield
        except ConnectionException as error:
            raise DeviceError(f"hand at {self._where}: connection lost: {error}") from None
        except ModbusException as error:
            raise NoAnswer(f"{place}: {error}") from None
        except (OSError, ValueError, termios.error) as error:  # pyserial's errors are OSErrors
            raise DeviceError(f"{place}: {error}") from None


class Eb90Transport:
    """The EB90 protocol over pyserial."""

    def __init__(self, device: str, baudrate: int, hand_id: int, timeout: float) -> None:
        """``timeout`` 0: what the line needs."""
        self._device, self._baudrate = device, baudrate
        self._hand_id, self._wanted = hand_id, timeout
        self.timeout = timeout
        self._port: Any = None
        self._parser = eb90.Parser(eb90.REPLY)

    def open(self) -> None:
        import serial

        self._parser.clear()
        try:
            self._port = serial.Serial(self._device, self._baudrate, timeout=0)
            latency = prefer_latency(self._port, self._device)
            self.timeout = self._wanted or line_timeout(self._baudrate, latency)
            self._port.write_timeout = self.timeout
        except (OSError, ValueError, termios.error) as error:
            raise DeviceError(
                f"hand at {self._device}: {error}; check the adapter and the udev rule"
            ) from None

    def close(self) -> None:
        if self._port is not None:
            with contextlib.suppress(OSError, termios.error):  # the adapter may be gone
                self._port.close()
            self._port = None

    def read(self, address: int, size: int) -> bytes:
        reply = self._ask(eb90.Frame(self._hand_id, eb90.READ, address, bytes([size])))
        if len(reply) != size:
            raise NoAnswer(f"hand at {self._device}: {len(reply)} of {size} bytes at {address}")
        return reply

    def write(self, address: int, data: bytes) -> None:
        reply = self._ask(eb90.Frame(self._hand_id, eb90.WRITE, address, data))
        if reply != b"\x01":
            raise NoAnswer(f"hand at {self._device}: write of {address} refused")

    def _ask(self, request: eb90.Frame) -> bytes:
        """The data of the reply to ``request``. One transaction at a time: the bus is shared."""
        try:
            self._port.reset_input_buffer()
            self._parser.clear()
            self._port.write(eb90.build(eb90.REQUEST, request))
            deadline = time.monotonic() + self.timeout
            while (left := deadline - time.monotonic()) > 0:
                self._port.timeout = left
                data = self._port.read(1)
                if data:
                    data += self._port.read(self._port.in_waiting)
                for frame in self._parser.feed(data):
                    if (frame.hand_id, frame.command, frame.address) == (
                        request.hand_id, request.command, request.address,
                    ):  # fmt: skip
                        return frame.data
        except (OSError, termios.error) as error:  # flushing a vanished device is a termios.error
            raise DeviceError(f"hand at {self._device}: {error}; unplugged?") from None
        raise NoAnswer(
            f"hand at {self._device}: no valid answer from id {self._hand_id} at {request.address}"
        )


def modbus_tcp(host: str, port: int, unit: int, timeout: float) -> ModbusTransport:
    """Modbus TCP, by default at 192.168.11.210:6000."""

    def make() -> Any:
        from pymodbus.client import ModbusTcpClient

        return ModbusTcpClient(host, port=port, timeout=CONNECT_S, retries=0)

    return ModbusTransport(f"{host}:{port}", unit, make, lambda client: timeout or NETWORK_S)


def modbus_rtu(device: str, baudrate: int, unit: int, timeout: float) -> ModbusTransport:
    """Modbus RTU over a serial device, 8N1; ``timeout`` 0: what the line needs."""

    def make() -> Any:
        from dexpie_ros.devices.inspire_rtu import punctual_serial_client

        client = punctual_serial_client()
        return client(device, baudrate=baudrate, timeout=CONNECT_S, retries=0)

    def allowed(client: Any) -> float:
        latency = prefer_latency(client.socket, device)
        client.socket.timeout = client.socket.write_timeout = timeout or line_timeout(
            baudrate, latency
        )
        return float(client.socket.timeout)

    return ModbusTransport(device, unit, make, allowed)
