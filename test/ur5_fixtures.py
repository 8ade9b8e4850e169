"""What the tests of the arm client share: an emulated controller a module, reset for every test."""

import pytest
from emulated import loopback

from dexpie_ros.emulators.peer import Emulator


@pytest.fixture(scope="module")
def host():
    return loopback()


@pytest.fixture(scope="module")
def controller(host, request):
    """The module's ``EMULATOR`` holds further options of the emulator."""
    options = getattr(request.module, "EMULATOR", ())
    with Emulator("ur5", "--host", host, *options) as emulator:
        yield emulator


@pytest.fixture
def robot(controller):
    controller.ask("reset")
    return controller
