"""Playing back: order, time, pause, seek, loop; and executing a recording again."""

import threading
import time
from collections import deque

import factories
import numpy as np
import pytest
from factories import Recipe

from dexpie_ros import messages
from dexpie_ros.control.arbiter import Arbiter
from dexpie_ros.control.types import STEP_NS, Command, Mode, RobotState, Source
from dexpie_ros.episodes import EpisodeError, EpisodeInfo, EpisodeWriter, read_episode
from dexpie_ros.episodes.execution import (
    ApproachConfig,
    Deviation,
    Execution,
    approach,
    recorded_commands,
)
from dexpie_ros.episodes.replay import Replay
from dexpie_ros.geometry import Pose, make_pose, rotation_angle, rotation_exp
from dexpie_ros.simulation.cell import Cell
from dexpie_ros.simulation.lockstep import LockstepConfig, LockstepRunner, Task


class Clock:
    """Stands until told to go on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return factories.write_episode(tmp_path_factory.mktemp("e") / "e", Recipe(steps=25))


def steps_of(got):
    return [
        (m.log_time_ns - factories.START_NS) // STEP_NS for m in got if m.topic == "/control/step"
    ]


def test_everything_comes_in_order_and_as_it_was_recorded(path):
    got = []
    replay = Replay(path, rate=1000)
    assert replay.run(got.append) == len(replay) == 125
    times = [m.log_time_ns for m in got]
    assert times == sorted(times) and steps_of(got) == list(range(25))
    step = factories.control_step(Recipe(), 7)
    mine = [m for m in got if m.topic == "/control/step"][7]
    assert mine.cdr == messages.serialize(messages.bag().control_step(step))
    assert replay.types["/control/step"] == "dexpie_msgs/msg/ControlStep"


def test_time_follows_the_rate(path):
    clock = Clock()
    replay = Replay(path, topics=["/control/step"], rate=2.0, clock=clock)
    got = []
    replay_time = []
    for now, expected in ((0.0, 1), (0.0199, 1), (0.02, 2), (0.1, 6)):
        clock.now = now
        rows = replay._due() if expected > len(got) else []
        got += rows
        replay_time.append(replay.position_s)
        assert len(got) == expected
    assert replay_time == pytest.approx([0.0, 0.0398, 0.04, 0.2])


def test_time_begins_with_the_first_message_not_with_the_player(path):
    clock = Clock()
    replay = Replay(path, topics=["/control/step"], clock=clock, start_s=0.2)
    clock.now = 60.0
    assert replay.position_s == pytest.approx(0.2)
    assert replay._due() == [5]
    clock.now = 60.05
    assert replay._due() == [6]


def test_pause_holds_and_seek_jumps(path):
    clock = Clock()
    replay = Replay(path, topics=["/control/step"], clock=clock, start_s=0.4)
    assert replay._due() == [10]
    clock.now = 0.05
    replay.pause()
    clock.now = 9.0
    assert replay.position_s == pytest.approx(0.45) and replay.paused
    replay.pause(False)
    clock.now = 9.03
    assert replay._due() == [11, 12]
    replay.seek(0.0)
    assert replay._due() == [0]
    replay.seek(100)
    assert replay._due() == [24] and replay._due() is None
    replay.rate = 10
    replay.seek(0.0)
    clock.now += 0.01
    assert replay._due() == [0, 1, 2]


def test_loop_goes_on_until_stopped(path):
    got = []
    replay = Replay(path, topics=["/control/step"], rate=500, loop=True)

    def publish(message):
        got.append(message)
        if len(got) == 60:
            replay.stop()

    replay.run(publish)
    assert steps_of(got)[:51] == [*range(25), *range(25), 0]


def test_a_paused_player_can_be_stopped(path):
    replay = Replay(path)
    replay.pause()
    thread = threading.Thread(target=replay.run, args=(lambda _: None,))
    thread.start()
    time.sleep(0.05)
    replay.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_a_seek_brings_the_latched_state_of_that_moment(tmp_path):
    bag = messages.bag()
    with EpisodeWriter(tmp_path / "e", EpisodeInfo("e")) as writer:
        for k in range(10):
            t = factories.START_NS + k * STEP_NS
            step = bag.control_step(factories.control_step(Recipe(), k))
            writer.write("/control/step", messages.serialize(step), t, t)
            if k in (2, 5):
                state = bag.intervention_state(t, step_mode(k), "", k)
                writer.write("/intervention/state", messages.serialize(state), t, t)
        writer.finish("success")
    got = []
    replay = Replay(tmp_path / "e", rate=1000, start_s=0.16)
    replay.run(got.append)
    assert (
        got[0].topic == "/intervention/state"
        and got[0].log_time_ns == factories.START_NS + 2 * STEP_NS
    )
    assert steps_of(got) == list(range(4, 10)) and len(got) == 8


def step_mode(k):
    return factories.control_step(Recipe(), k).mode


@pytest.mark.parametrize("rate", [0, -1, float("nan"), 1e9])
def test_impossible_rates_are_refused(path, rate):
    with pytest.raises(EpisodeError, match="rate"):
        Replay(path, rate=rate)


def test_a_topic_that_was_not_recorded_is_named(path):
    with pytest.raises(EpisodeError, match="nothing recorded on /teleop/glove; there is: /arm"):
        Replay(path, topics=["/teleop/glove"])


def test_the_approach_is_slow_and_ends_at_the_first_command(path):
    recipe = Recipe()
    now = Command(factories.tcp_at(recipe, 0.0), factories.hand_at(recipe, 0.0))
    goal = Command(factories.tcp_at(recipe, 2.0), factories.hand_at(recipe, 2.0))
    way = [now, *approach(now, goal, ApproachConfig(speed=0.05, turn=0.3, hand=0.5))]
    assert way[-1] is goal and approach(goal, goal) == []
    for a, b in zip(way, way[1:]):
        assert np.linalg.norm(b.tcp.position - a.tcp.position) <= 0.05 * 0.04 + 1e-9
        turn = rotation_angle(a.tcp.matrix()[:3, :3], b.tcp.matrix()[:3, :3])
        assert turn <= 0.3 * 0.04 + 1e-9
        assert np.abs(b.hand - a.hand).max() <= 0.5 * 0.04 + 1e-9


class Graph:
    """An arbiter whose chunks come ``delay`` steps after the step that they answer."""

    def __init__(self, execution, delay=2):
        self.execution, self.delay, self.lost = execution, delay, ()
        self.arbiter = Arbiter()
        self.arbiter.start("evaluation")
        self.steps, self.chunks, self._due = [], [], deque()

    def step(self, time_ns, robot):
        while self._due and self._due[0][0] <= time_ns:
            assert self.arbiter.add_chunk(self._due.popleft()[1])
        step = self.arbiter.step(time_ns, robot, None)
        self.steps.append(step)
        chunk = self.execution.answer(step)
        if chunk is not None:
            self.chunks.append(chunk)
            if len(self.chunks) - 1 not in self.lost:
                self._due.append((time_ns + self.delay * STEP_NS, chunk))
        return step


def run_graph(graph, robot_at, limit=2000):
    """With a robot that is where it was told to be. The commands that were executed."""
    for k in range(limit):
        now = 2 * factories.START_NS + k * STEP_NS
        here = graph.steps[-1].command if graph.steps else robot_at
        graph.step(now, RobotState(now, np.zeros(6), np.zeros(6), here.tcp, here.hand))
        if graph.execution.done or graph.execution.stopped:
            return graph.steps
    raise AssertionError("never ends")


def positions(items):
    return np.stack([item.tcp.position for item in items])


@pytest.mark.parametrize("delay", [1, 2, 4, 8])
def test_recorded_commands_go_through_the_arbiter_as_they_were(path, delay):
    """After a slow approach, and whatever the delay, the arbiter's commands are the recorded ones."""
    episode = read_episode(path)
    commands = recorded_commands(episode)
    away = Command(
        factories.Pose(
            commands[0].tcp.position + np.array([0.05, 0, 0]), commands[0].tcp.quaternion
        ),
        commands[0].hand,
    )
    execution = Execution(commands)
    steps = run_graph(Graph(execution, delay), away)
    assert execution.executed == len(commands) == 25 and not execution.stopped
    driven = [step.command for step in steps if step.source is Source.POLICY]
    executed, recorded = positions(driven[-25:]), positions(commands)
    # The synthetic motion starts at speed, the limiter from rest: it lags, and never by much.
    assert np.abs(executed - recorded).max() < 0.01
    assert np.abs(executed[-1] - recorded[-1]).max() < 0.002
    gap = execution.deviation
    assert gap.position == pytest.approx(
        np.linalg.norm(executed - recorded, axis=1).max(), abs=1e-9
    )
    pairs = list(zip(driven[-25:], commands))
    turns = [rotation_angle(a.tcp.matrix()[:3, :3], b.tcp.matrix()[:3, :3]) for a, b in pairs]
    assert gap.turn == pytest.approx(max(turns), abs=1e-9)
    assert gap.hand == pytest.approx(max(np.abs(a.hand - b.hand).max() for a, b in pairs))
    assert np.abs(np.stack([c.hand for c in driven[-25:]]) - episode.command_hand).max() < 0.05
    way = positions(step.command for step in steps[:-25])
    assert np.linalg.norm(np.diff(way, axis=0), axis=1).max() <= 0.05 * 0.04 + 1e-9, "slow"
    assert all(step.source is Source.POLICY for step in steps[delay + 1 :]), "no gap between chunks"


def test_limits_that_turn_or_close_less_are_told():
    """The position is as recorded; the wrist and one finger are not."""
    still = factories.tcp_at(Recipe(), 0.0)
    turned = Pose.from_matrix(still.matrix() @ make_pose(rotation_exp([0, 0, 0.2]), np.zeros(3)))
    gap = Deviation()
    hand = np.full(6, 0.5)
    gap.note(Command(still, hand), Command(turned, hand + np.eye(6)[1] / 4))
    gap.note(Command(still, hand), Command(still, hand))
    assert (gap.position, gap.turn, gap.hand) == pytest.approx((0.0, 0.2, 0.25), abs=1e-9)
    assert str(gap) == "0.0 mm, 11.5 degrees and 0.25 of an opening"


def test_after_a_stall_it_goes_on_from_where_the_robot_is_held(path):
    """A chunk that never arrives: nothing is skipped, and the robot does not jump."""
    commands = recorded_commands(read_episode(path))
    slow = [c for c in commands for _ in range(6)]
    execution = Execution(slow)
    graph = Graph(execution)
    graph.lost = (2, 3)
    steps = run_graph(graph, commands[0])
    held = [k for k, step in enumerate(steps) if step.source is Source.HOLD]
    assert len(held) > 5, "it stalled"
    seen = positions(step.command for step in steps)
    for command in commands:
        assert np.linalg.norm(seen - command.tcp.position, axis=1).min() < 0.01
    after = seen[held[-1] :]
    assert np.linalg.norm(np.diff(after, axis=0), axis=1).max() < 0.04 * 0.75
    assert np.linalg.norm(after[1] - after[0]) < 0.05 * 0.04 + 1e-9, "it starts slowly"


def test_nothing_is_sent_once_somebody_else_drives(path):
    commands = recorded_commands(read_episode(path))
    execution = Execution([c for c in commands for _ in range(10)])
    graph = Graph(execution)
    here = commands[0]
    for k in range(30):
        now = factories.START_NS + k * STEP_NS
        if k == 20:
            assert graph.arbiter.request(Mode.HOLD)[0]
        if k == 21:
            assert graph.arbiter.request(Mode.POLICY)[0], "the policy may drive again: not this one"
        robot = RobotState(now, np.zeros(6), np.zeros(6), here.tcp, here.hand)
        here = graph.step(now, robot).command
    assert execution.stopped == "the arbiter went to HOLD" and not execution.done
    assert all(chunk.time_ns < factories.START_NS + 20 * STEP_NS for chunk in graph.chunks)
    assert all(step.source is Source.HOLD for step in graph.steps[20:])


def test_a_simulated_session_executed_again_reaches_the_same_outcome(tmp_path):
    """The recorded commands, through arbiter and limits, in the scene of the same seed."""
    settings = LockstepConfig()
    runner = LockstepRunner(settings)
    try:
        seed = next(
            s
            for s in range(20)
            if runner.run(Task("demonstration", s), tmp_path).outcome == "success"
        )
    finally:
        runner.close()
    episode = read_episode(tmp_path / f"demonstration-{seed:06d}")
    cell = Cell(settings.cell)
    try:
        state = cell.reset(seed)
        graph = Graph(Execution(recorded_commands(episode)))
        for _ in range(len(episode) + 100):
            state = cell.step(graph.step(state.time_ns, state.robot).command)
            if state.success:
                break
        assert state.success and not state.failure
    finally:
        cell.close()


def test_what_was_lost_is_not_sent_to_a_robot(path):
    episode = read_episode(path)
    episode.command_hand[3] = np.nan
    with pytest.raises(EpisodeError, match="first at step 3"):
        recorded_commands(episode)
