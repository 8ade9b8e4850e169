"""The keyboard's node without a terminal: what bytes ask for."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.asking import Requests
from dexpie_ros.control.held_keys import HeldKeys
from dexpie_ros.control.keys import Action
from dexpie_ros.control.panel import PanelState
from dexpie_ros.control.terminal_keys import KeyParser
from dexpie_ros.nodes import keyboard
from dexpie_ros.nodes.keyboard import Keyboard, KeyboardParameters

MS = 1_000_000


class Typed:
    """A keyboard whose bytes come at given times and whose requests are collected."""

    def __init__(self, monkeypatch, running=True):
        self.asked, self.now, self.bytes = [], 0, b""
        self.node = node = Keyboard.__new__(Keyboard)
        parameters = KeyboardParameters()
        values = {
            "parameters": parameters, "_running": running, "_asking_cause": False,
            "_keys": KeyParser(round(parameters.escape_s * 1e9)), "_leaving": False,
            "_held": HeldKeys(round(parameters.again_s * 1e9)), "_asked": Requests(),
            "_panel": PanelState(message=""), "_awaited": None, "_askable": dict.fromkeys(Action),
            "_terminal": SimpleNamespace(read=lambda: self.bytes),
            "_ask": lambda _client, _request, what, _insist=False: self.asked.append(what),
            "_end": None,
        }  # fmt: skip
        for name, value in values.items():
            monkeypatch.setattr(node, name, value, raising=False)
        clock = SimpleNamespace(monotonic_ns=lambda: self.now, monotonic=lambda: self.now * 1e-9)
        monkeypatch.setattr(keyboard, "time", clock)

    def type(self, data, at_ms):
        self.now, self.bytes = at_ms * MS, data
        self.node._read()

    def hold(self, data, since_ms, pause_ms, seconds=3):
        """As a terminal has it: at once, after a pause, and then every 40 ms."""
        self.type(data, since_ms)
        for at in range(since_ms + pause_ms, since_ms + 1000 * seconds, 40):
            self.type(data, at)

    @property
    def message(self):
        return self.node._panel.message


@pytest.mark.parametrize("pause_ms", [250, 500, 660])
def test_a_space_bar_that_is_held_down_takes_over_once(monkeypatch, pause_ms):
    typed = Typed(monkeypatch)
    typed.hold(b" ", 1000, pause_ms)
    assert typed.asked == ["toggle"]
    assert typed.message.count("(space counts again after 0.7 s)") == 1
    typed.type(b" ", 5000)
    typed.type(b" ", 5800)
    assert typed.asked == ["toggle"] * 3, "and gives back, and takes over"
    typed.hold(b"j", 6000, pause_ms)
    assert typed.asked[3:] == ["clutch"]


def test_the_stop_and_force_are_never_held_back(monkeypatch):
    typed = Typed(monkeypatch)
    typed.type(b" ", 1000)
    typed.type(b"x", 1010)
    typed.type(b"xF", 1050)
    typed.type(b"F", 1090)
    assert typed.asked == ["toggle", "emergency_stop", "emergency_stop", "force", "force"]


def test_a_held_f_goes_on_asking_for_the_cause(monkeypatch):
    typed = Typed(monkeypatch)
    typed.hold(b"f", 1000, 500, seconds=1)
    assert "why?" in typed.message and not typed.asked
    typed.type(b"2", 2000)
    assert typed.asked == ["failure dropped"]


def test_enter_that_is_held_down_does_not_start_what_was_not_set_up(monkeypatch):
    typed = Typed(monkeypatch, running=False)
    typed.hold(b"\r", 1000, 500)
    assert typed.asked == ["start"]
