"""The arbiter's services over an arbiter that steps, without a graph."""

import threading
from types import SimpleNamespace

from arbiter_rig import Rig

from dexpie_ros.control.homing import HomingConfig
from dexpie_ros.nodes import intervention_services
from dexpie_ros.nodes.intervention_services import InterventionServices

MS = 1_000_000


class Pause:
    """Time passes while somebody waits."""

    def __init__(self, _seconds):
        pass

    def __await__(self):
        yield


class Asked:
    """The services over an arbiter that steps, with a clock of their own."""

    def __init__(self, monkeypatch, homing=None):
        self.rig, self.warnings, self.now = Rig(), [], 0
        self.jog, self.amount = 1, []
        logger = SimpleNamespace(warning=lambda text, **_: self.warnings.append(text))
        node = SimpleNamespace(
            serve=lambda *_: None, subscribe=lambda *_: None, get_logger=lambda: logger, pause=Pause
        )
        clock = SimpleNamespace(monotonic_ns=lambda: self.now)
        monkeypatch.setattr(intervention_services, "time", clock)
        self.services = InterventionServices(
            node, self.rig.arbiter, threading.RLock(), homing or HomingConfig().in_simulation()
        )
        self.step()

    def step(self, operator=None, aligned=None):
        self.now += 40 * MS
        step = self.rig.step(operator, aligned)
        self.services.stepped(step)
        return step

    def ask(self, velocity=0.05, axis="x"):
        stamp = SimpleNamespace(sec=self.jog, nanosec=0)
        self.services._on_jog(
            SimpleNamespace(
                name=[axis], velocity=[velocity], position=self.amount,
                header=SimpleNamespace(stamp=stamp),
            )
        )  # fmt: skip

    def key(self, text):
        self.services._on_key(SimpleNamespace(data=text))

    @property
    def x(self):
        return self.rig.arbiter.last_command.tcp.position[0]


def go_home(asked):
    """What the service answers at once, or None where the robot is on its way."""
    response = SimpleNamespace()
    try:
        asked.services._serve_home(None, response).send(None)
    except StopIteration:
        return response.success, response.message
    return None
