"""The Modbus RTU client's one timeout per transaction."""

from types import SimpleNamespace

import pytest
from pymodbus.client import ModbusSerialClient

from dexpie_ros.devices import inspire_rtu


def test_what_comes_behind_a_piece_of_an_answer_gets_the_rest_of_the_time(monkeypatch):
    clock, waited = SimpleNamespace(now=10.0), []
    monkeypatch.setattr(inspire_rtu, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(ModbusSerialClient, "send", lambda self, request, addr: len(request))

    def take(self, size):
        waited.append(self.comm_params.timeout_connect)
        return b"?"

    monkeypatch.setattr(ModbusSerialClient, "recv", take)
    client = inspire_rtu.punctual_serial_client()("/dev/none", timeout=0.1)
    for begin in (10.0, 20.0):
        clock.now = begin
        assert client.send(b"1234") == 4
        for after, answer in ((0.0, b"?"), (0.07, b"?"), (0.1, b""), (0.2, b"")):
            clock.now = begin + after
            assert client.recv(None) == answer
    assert waited == pytest.approx([0.1, 0.03, 0.1, 0.03])
    assert client.comm_params.timeout_connect == 0.1


def test_the_time_is_whole_again_after_the_line_was_lost(monkeypatch):
    def lose(self, size):
        raise OSError("gone")

    monkeypatch.setattr(ModbusSerialClient, "recv", lose)
    client = inspire_rtu.punctual_serial_client()("/dev/none", timeout=0.1)
    client._asked = inspire_rtu.time.monotonic() - 0.05
    with pytest.raises(OSError, match="gone"):
        client.recv(None)
    assert client.comm_params.timeout_connect == 0.1
