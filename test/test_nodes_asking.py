"""Requests that are lost: to a process that was killed and started again, whose dead one is still listed."""

import queue
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.asking import AGAIN_S, Asking, Requests
from dexpie_ros.control.held_keys import HeldKeys
from dexpie_ros.control.keys import SERVICES, Action
from dexpie_ros.control.panel import PanelState
from dexpie_ros.nodes import keyboard, session_client
from dexpie_ros.nodes.keyboard import Keyboard, KeyboardParameters
from dexpie_ros.nodes.session_client import IDLE, LOST_S, RUNNING, GraphError, SessionClient
from dexpie_ros.web import live
from dexpie_ros.web.live import LiveError, LiveGraph

STOP, CLEAR, HOLD = (
    SERVICES[action] for action in (Action.EMERGENCY_STOP, Action.CLEAR_FAULT, Action.HOLD)
)


class Client:
    """Of a service that answers only what it is told to."""

    def __init__(self, name="/some/service"):
        self.srv_name, self.sent, self.forgotten = name, [], []

    def service_is_ready(self):
        return True

    def wait_for_service(self, timeout_sec):
        return True

    def call_async(self, request):
        self.sent.append(Future())
        return self.sent[-1]

    def remove_pending_request(self, future):
        self.forgotten.append(future)

    def answer(self, which=-1, **fields):
        self.sent[which].set_result(SimpleNamespace(**{"success": True, "message": "", **fields}))


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now

    def monotonic_ns(self):
        return round(self.now * 1e9)


def test_what_is_never_answered_is_given_up_and_forgotten():
    client = Client()
    asked = Asking(client, "request", 100.0, 30.0)
    assert not asked.over(129.0) and len(client.sent) == 1, "not asked twice"
    assert asked.over(130.0) and asked.answer is None and client.forgotten == client.sent
    assert "/some/service did not answer within 30 s" in asked.silence
    assert "try again" in asked.silence


def test_what_may_be_asked_twice_is_asked_until_one_is_answered():
    client = Client()
    asked = Asking(client, "request", 100.0, 30.0, insist=True)
    for k in range(1, 4):
        assert not asked.over(100.0 + k * AGAIN_S) and len(client.sent) == 1 + k
    client.answer(2, message="second life")
    assert asked.over(104.0) and asked.answer.message == "second life"
    assert client.forgotten == [client.sent[k] for k in (0, 1, 3)]


# -- the terminal ----------------------------------------------------------------------------------
class Terminal(Keyboard):
    """Without a terminal and a graph."""

    def __init__(self):
        self.parameters = KeyboardParameters()
        self._panel, self._running, self._asking_cause = PanelState(message=""), True, False
        self._asked, self._awaited, self._leaving = Requests(), None, False
        self._held = HeldKeys()
        self._askable = {action: Client(service) for action, service in SERVICES.items()}
        self._end = Client("/session/end_episode")

    def later(self, clock, seconds):
        clock.now += seconds
        self._look_for_answers()
        return self._panel.message


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    for module in (keyboard, live, session_client):
        monkeypatch.setattr(module, "time", made)
    return made


def test_a_key_that_nobody_answers_says_so(clock):
    terminal = Terminal()
    terminal._press("s", time.monotonic_ns())
    assert terminal.later(clock, 29.0) == "success ..."
    said = terminal.later(clock, 1.0)
    assert "success: /session/end_episode did not answer within 30 s" in said
    terminal._press(" ", time.monotonic_ns())
    terminal._askable[Action.TOGGLE].answer(message="the operator drives")
    assert terminal.later(clock, 0.1) == "toggle: the operator drives"
    assert len(terminal._end.sent) == 1, "an end is not asked for twice"


def test_the_stop_is_sent_until_it_is_answered_but_not_after_the_fault_was_cleared(clock):
    terminal = Terminal()
    stop = terminal._askable[Action.EMERGENCY_STOP]
    terminal._press("x", time.monotonic_ns())
    terminal.later(clock, 1.1)
    terminal._press("h", time.monotonic_ns())  # whatever else is pressed meanwhile
    terminal.later(clock, 1.1)
    assert len(stop.sent) == 3
    terminal._press("c", time.monotonic_ns())
    terminal.later(clock, 5.0)
    assert len(stop.sent) == 3 and len(terminal._askable[Action.HOLD].sent) == 1


def test_who_wants_to_leave_need_not_wait_for_ever(clock):
    terminal = Terminal()
    terminal._press("q", time.monotonic_ns())
    assert not terminal._may_leave()
    clock.now += 30.0
    assert terminal._may_leave()


# -- the Live page ---------------------------------------------------------------------------------
class Page(LiveGraph):
    """The thread's part of it, without a thread and a graph."""

    def __init__(self):
        self._orders, self._asked = queue.Queue(), Requests()
        self._clients = {name: Client(name) for name in (STOP, CLEAR, HOLD)}

    def order(self, service):
        future = Future()
        self._orders.put((service, "request", future))
        self._send_orders()
        return future

    def later(self, clock, seconds):
        clock.now += seconds
        self._look_for_answers()


def test_a_request_of_the_page_is_given_up_with_a_reason(clock):
    page = Page()
    lost, done = page.order(HOLD), page.order(HOLD)
    page._clients[HOLD].answer(message="held")
    page.later(clock, 0.1)
    assert done.result(0).message == "held" and not lost.done()
    page.later(clock, 60.0)
    with pytest.raises(LiveError, match=f"{HOLD} did not answer within 60 s"):
        lost.result(0)
    assert page._asked == [] and len(page._clients[HOLD].sent) == 2


def test_the_stop_of_the_page_is_sent_until_it_is_answered(clock):
    page, stop = Page(), None
    stop = page.order(STOP)
    page.later(clock, 1.1)
    page._clients[STOP].answer(message="the robot holds")
    page.later(clock, 0.1)
    assert stop.result(0).message == "the robot holds" and len(page._clients[STOP].sent) == 2
    page.order(STOP)
    page.order(CLEAR)
    page.later(clock, 1.1)
    assert len(page._clients[STOP].sent) == 3, "no stop of before comes after it"


# -- programs --------------------------------------------------------------------------------------
class Program(SessionClient):
    """A session client whose graph is what ``happens`` makes of it, second by second."""

    def __init__(self, clock, happens):
        self._clock, self._happens, self._complaints = clock, happens, {}
        self._start, self._end = Client("/session/start_episode"), Client("/session/end_episode")
        self.told(IDLE, "", "")

    def told(self, phase, episode_id, directory):
        self._state = SimpleNamespace(phase=phase, episode_id=episode_id, directory=directory)

    def _spin_once(self):
        self._clock.now += 1.0
        self._happens(self)


def test_a_start_that_was_lost_is_asked_for_again(clock):
    def second_is_heard(program):
        if len(program._start.sent) == 2 and not program._start.sent[1].done():
            program._start.answer(1, episode_id="a")
            program.told(RUNNING, "a", "")

    program = Program(clock, second_is_heard)
    began = clock.now
    assert program.start("demonstration", episode_id="a") == "a"
    assert LOST_S <= clock.now - began < 2 * LOST_S
    assert program._start.forgotten == [program._start.sent[0]]


def test_a_start_whose_answer_was_lost_is_known_by_what_followed(clock):
    def carried_out(program):
        if len(program._start.sent) == 1 and clock.now > 105:
            program.told(RUNNING, "a", "")

    program = Program(clock, carried_out)
    assert program.start("demonstration", episode_id="a") == "a"
    assert len(program._start.sent) == 1, "not started twice"


def test_a_second_request_refused_for_the_first_is_no_refusal(clock):
    def late(program):
        if len(program._start.sent) == 2 and not program._start.sent[1].done():
            program._start.answer(
                1, success=False, message="episode a is still there; end it first"
            )
        if clock.now > 120:
            program.told(RUNNING, "a", "")

    assert Program(clock, late).start("demonstration", episode_id="a") == "a"


def test_an_end_whose_answer_was_lost_is_known_by_what_followed(clock, tmp_path):
    (tmp_path / "a").mkdir()

    def carried_out(program):
        program.told(IDLE if clock.now > 105 else RUNNING, "a", str(tmp_path))

    program = Program(clock, carried_out)
    program.told(RUNNING, "a", str(tmp_path))
    assert program.end("success") == str(tmp_path / "a")
    assert len(program._end.sent) == 1


def test_a_session_that_was_started_anew_ended_nothing(clock):
    program = Program(clock, lambda program: program.told(IDLE, "", ""))
    program.told(RUNNING, "a", "")
    with pytest.raises(GraphError, match="started anew; what was recorded is aborted"):
        program.end("success")


def test_a_session_that_never_answers_is_given_up(clock):
    program = Program(clock, lambda _: None)
    with pytest.raises(GraphError, match=r"start_episode did not answer within 60 s.*try again"):
        program.start("demonstration", episode_id="a")
    program.told(RUNNING, "a", "")
    with pytest.raises(GraphError, match="end_episode did not answer within 60 s"):
        program.end("success")


def test_a_refusal_is_told_at_once(clock):
    def refuses(program):
        if not program._start.sent[0].done():
            program._start.answer(0, success=False, message="kind 'play'")

    program, began = Program(clock, refuses), clock.now
    with pytest.raises(GraphError, match="kind 'play'"):
        program.start("play", episode_id="a")
    assert clock.now - began < 3
