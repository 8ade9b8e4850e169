"""The simulated operator: what it does with the task, with its devices, and its honesty."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from practice import practise, retarget

from dexpie_ros.control.types import Command, Mode
from dexpie_ros.simulation.attention import Attention, AttentionConfig
from dexpie_ros.simulation.cell import Cell, CellConfig, CellState
from dexpie_ros.simulation.expert import Expert
from dexpie_ros.simulation.kinematics import matrix_of, rotation_matrix, rotation_vector
from dexpie_ros.simulation.operator import (
    Operator,
    OperatorConfig,
    longest_episode,
    with_role,
)
from dexpie_ros.simulation.person import Body, BodyConfig
from dexpie_ros.simulation.skills import StyleConfig

PERFECT = BodyConfig(
    tremor=0, drift=0, glove_noise=0, glove_gain=0, alignment_residual=0, tracker_latency=0
)


@pytest.fixture(scope="module")
def cell() -> Cell:
    return Cell(CellConfig())


def test_demonstrations_succeed_through_tracker_and_glove(cell: Cell) -> None:
    operator = Operator(OperatorConfig(), seed=0)
    attempts = [practise(cell, operator, seed) for seed in range(8)]
    assert sum(a.outcome == "success" for a in attempts) >= 7
    assert all(a.takeovers == 1 for a in attempts)
    assert 100 < np.median([a.ticks for a in attempts]) < 220


def test_same_seed_same_person_same_episode(cell: Cell) -> None:
    traces = []
    for _ in range(2):
        attempt = practise(cell, Operator(OperatorConfig(), seed=5), 3)
        traces.append([
            (o.tracker.position.tobytes(), tuple(o.ergonomics.values()), o.toggle, o.outcome)
            for o in attempt.outputs
        ])  # fmt: skip
    assert traces[0] == traces[1]


def test_tracker_world_differs_by_person_but_not_by_episode(cell: Cell) -> None:
    def first_pose(person: int, episode: int) -> np.ndarray:
        operator = Operator(OperatorConfig(body=PERFECT), person)
        state = cell.reset(1)
        operator.reset(state, episode)
        return matrix_of(operator.observe(state, Mode.HOLD).tracker)

    assert np.array_equal(first_pose(0, 1), first_pose(0, 2))
    apart = rotation_vector(first_pose(0, 1)[:3, :3] @ first_pose(1, 1)[:3, :3].T)
    assert np.linalg.norm(apart) > 0.1


def test_calibrates_at_the_beginning_of_an_episode_with_the_hand_held_like_the_robot(
    cell: Cell,
) -> None:
    operator = Operator(OperatorConfig(), 0)
    for episode in range(2):
        state = cell.reset(episode)
        operator.reset(state, episode)
        flags = [operator.observe(state, Mode.HOLD).calibrate for _ in range(3)]
        assert flags == [True, False, False]
    hand = operator._body.hand[:3, :3]
    robot = matrix_of(state.robot.tcp)[:3, :3]
    assert np.linalg.norm(rotation_vector(hand @ robot.T)) < 0.03 + 1e-9


def test_a_perfect_body_measures_exactly_what_it_does() -> None:
    body = Body(PERFECT, np.random.default_rng(0))
    start = np.eye(4)
    start[:3, :3] = rotation_matrix(np.array([0.2, -0.4, 1.0]))
    body.begin(start, np.full(6, 0.3), np.random.default_rng(1))
    before, ergonomics = body.measure()
    assert retarget(ergonomics) == pytest.approx(np.full(6, 0.3))
    body.move(np.array([0.01, 0.02, -0.03]), np.array([0.1, 0.0, 0.0]))
    after, _ = body.measure()
    relative = np.linalg.inv(matrix_of(before)) @ matrix_of(after)
    assert relative == pytest.approx(np.linalg.inv(start) @ body.hand, abs=1e-12)


def test_tracker_latency_delays_by_whole_steps() -> None:
    body = Body(dataclasses.replace(PERFECT, tracker_latency=0.08), np.random.default_rng(0))
    body.begin(np.eye(4), np.ones(6), np.random.default_rng(1))
    still, _ = body.measure()
    body.move(np.array([0.1, 0, 0]), np.zeros(3))
    reports = [body.measure()[0].position for _ in range(4)]
    moved = [bool(np.linalg.norm(r - still.position) > 0.05) for r in reports]
    assert moved == [False, False, True, True]


def test_tremor_has_the_configured_size() -> None:
    settings = dataclasses.replace(PERFECT, tremor=0.0004)
    body = Body(settings, np.random.default_rng(0))
    body.begin(np.eye(4), np.ones(6), np.random.default_rng(1))
    track = np.array([body.measure()[0].position for _ in range(500)])
    spread = (track - track.mean(0)).std(0)
    # A sine of amplitude a has a standard deviation of a / sqrt 2; the world's turn mixes axes.
    assert np.sqrt((spread**2).mean()) == pytest.approx(0.0004 / np.sqrt(2), rel=0.1)


def test_judge_touches_nothing_and_says_how_it_ended(cell: Cell) -> None:
    operator = Operator(OperatorConfig(role="judge", limit=0.4, declare_delay=0.08), 0)
    attempt = practise(cell, operator, 0)
    assert (attempt.outcome, attempt.cause, attempt.takeovers) == ("failure", "timeout", 0)
    # Seen at step 10, key pressed two steps later; said once.
    assert attempt.ticks == 12
    outputs = [operator.observe(cell.state, Mode.HOLD) for _ in range(5)]
    assert not any(o.outcome for o in outputs)


def tip(cell: Cell) -> None:
    """Push the bottle with a finger's force, at a finger's height."""
    cell.data.xfrc_applied[cell.task.handled_id] = [0, 1.0, 0, -0.02, 0, 0]


def test_judge_names_the_cause_of_a_failure(cell: Cell) -> None:
    operator = Operator(OperatorConfig(role="judge"), 0)

    def shove(state: CellState) -> Command:
        tip(cell)
        return Command(state.robot.tcp, state.robot.hand)

    attempt = practise(cell, operator, 0, policy=shove)
    cell.data.xfrc_applied[:] = 0
    assert (attempt.outcome, attempt.cause) == ("failure", "tipped")


def test_supervisor_takes_over_from_a_policy_that_stands_still_and_succeeds(cell: Cell) -> None:
    operator = Operator(OperatorConfig(role="supervise"), 0)
    results = []
    for seed in range(4):
        attempt = practise(
            cell, operator, seed, policy=lambda s: Command(s.robot.tcp, s.robot.hand)
        )
        notes = " | ".join(o.note for o in attempt.outputs if o.note)
        pressed = next(k for k, o in enumerate(attempt.outputs) if o.toggle)
        # Stalled after 1.8 s, plus a reaction, plus the time to align.
        assert 45 + 4 <= pressed <= 45 + 12 + 60
        assert "trigger stall" in notes
        results.append(attempt.outcome)
    assert results.count("success") >= 3


def test_supervisor_lets_a_good_policy_be(cell: Cell) -> None:
    """Replays a demonstration as the policy: nobody has to take over."""
    made = practise(cell, Operator(OperatorConfig(), 1), 2)
    assert made.outcome == "success"
    states = made.states
    plan = iter([Command(s.robot.tcp, s.robot.hand) for s in states[2:]] + [
        Command(states[-1].robot.tcp, states[-1].robot.hand)] * 300)  # fmt: skip
    operator = Operator(OperatorConfig(role="supervise", limit=12.0), 1)
    attempt = practise(cell, operator, 2, policy=lambda s: next(plan))
    before_end = [o for o in attempt.outputs[:100] if o.toggle]
    assert not before_end


def test_reaction_times_are_lognormal_with_lapses() -> None:
    settings = AttentionConfig(lapse=0.0)
    delays = []
    for seed in range(400):
        attention = Attention(settings, np.random.default_rng(seed))
        steps = 0
        while not attention.watch("tilt", 1.0):
            steps += 1
        delays.append(steps * 0.04)
    assert np.median(delays) == pytest.approx(0.35, abs=0.045)
    assert np.std(np.log(delays)) == pytest.approx(0.3, abs=0.06)
    slow = AttentionConfig(lapse=1.0)
    attention = Attention(slow, np.random.default_rng(0))
    steps = 0
    while not attention.watch("tilt", 1.0):
        steps += 1
    assert steps * 0.04 > 1.0


def test_misses_and_false_alarms_have_their_rates() -> None:
    blind = [
        any(
            attention.watch("tilt", 1.0)
            for attention in [
                Attention(AttentionConfig(miss=0.5), np.random.default_rng([seed, 3]))
            ]
            for _ in range(100)
        )
        for seed in range(600)
    ]
    assert np.mean(blind) == pytest.approx(0.5, abs=0.08)
    nervous = AttentionConfig(false_alarm=0.5)
    alarms = 0
    for seed in range(300):
        attention = Attention(nervous, np.random.default_rng(seed))
        causes = [attention.watch("", -0.01 * step) for step in range(40)]
        alarms += "false_alarm" in causes
    # 1.6 s at a rate of 0.5 per second, less the reaction time at the end.
    assert 0.35 < alarms / 300 < 0.6


@pytest.mark.parametrize(("miss", "expected"), [(0.0, "trigger forewarned"), (1.0, "")])
def test_a_start_that_timed_out_is_remembered_unless_the_person_misses_it(
    cell: Cell, miss: float, expected: str
) -> None:
    """Watched again, it takes over before the moment at which the same start timed out."""
    settings = OperatorConfig(
        role="judge", limit=4.0, attention=AttentionConfig(miss=miss, lapse=0.0, stall=60.0)
    )
    operator = Operator(settings, 0)
    still = practise(cell, operator, 4, policy=lambda s: Command(s.robot.tcp, s.robot.hand))
    assert (still.outcome, still.cause) == ("failure", "timeout")
    operator.config = with_role(settings, "supervise")
    again = practise(
        cell, operator, 4, policy=lambda s: Command(s.robot.tcp, s.robot.hand), limit=120
    )
    said = [(k, o.note) for k, o in enumerate(again.outputs) if o.note.startswith("trigger")]
    assert [note for _, note in said] == ([expected] if expected else [])
    if said:  # one to 2.2 s before, seen 0.12 s late
        assert 100 - 55 <= said[0][0] <= 100 - 25 + 4
    assert (again.takeovers > 0) == bool(expected)


def test_loses_control_and_takes_it_again(cell: Cell) -> None:
    operator = Operator(OperatorConfig(), 0)
    state = cell.reset(0)
    operator.reset(state, 0)
    modes = [Mode.HOLD] * 3 + [Mode.HUMAN] * 5 + [Mode.FAULT] + [Mode.HOLD] * 30
    outputs = [operator.observe(state, mode) for mode in modes]
    presses = [k for k, o in enumerate(outputs) if o.toggle]
    assert presses[0] < 3
    assert presses[1] > 8
    assert outputs[8].note == "lost control; label none"


def test_waits_for_the_arbiter_to_align(cell: Cell) -> None:
    operator = Operator(OperatorConfig(), 0)
    state = cell.reset(0)
    operator.reset(state, 0)
    operator.observe(state, Mode.HOLD)
    assert operator.observe(state, Mode.HOLD).toggle
    assert not any(operator.observe(state, Mode.ALIGNING).toggle for _ in range(40))


def test_an_operator_without_an_episode_says_so(cell: Cell) -> None:
    state = cell.reset(0)
    with pytest.raises(RuntimeError, match="call reset"):
        Operator(OperatorConfig(), 0).observe(state, Mode.HOLD)
    assert with_role(OperatorConfig(), "judge").role == "judge"


def test_gives_control_back_where_the_next_stage_begins(cell: Cell) -> None:
    """A policy that freezes once, and works again after it got the robot back."""
    operator = Operator(OperatorConfig(role="supervise", hand_back=True), 0)
    expert: Expert | None = None
    last_tick = -2
    frozen = [False]

    def once(state: CellState) -> Command:
        """Works for ten steps, freezes until somebody else has moved the robot, works again."""
        nonlocal expert, last_tick
        if state.scene_tick > last_tick + 1:
            expert = Expert(cell.task, StyleConfig(), 3, state, cell.command)
            frozen[0] = state.scene_tick == 0
        last_tick = state.scene_tick
        assert expert is not None
        if frozen[0] and state.scene_tick >= 10:
            return cell.command
        return expert.command(state)

    attempt = practise(cell, operator, 3, policy=once)
    notes = [o.note for o in attempt.outputs if o.note]
    assert attempt.outcome == "success"
    assert attempt.takeovers == 1
    assert sum("gave control back" in note for note in notes) == 1
    assert sum(o.toggle for o in attempt.outputs) == 2


@pytest.mark.parametrize("stall", [0.6, 1.6, 1.9])
def test_no_episode_outlasts_what_the_limits_say(cell: Cell, stall: float) -> None:
    """The policy stands still; the later the operator takes over, the later their time is up."""
    attention = AttentionConfig(stall=stall, lapse=0.0)
    settings = OperatorConfig(role="judge", limit=2.4, correction_limit=1.0, attention=attention)
    assert longest_episode(settings) == 65  # 2.4 s and 0.2 s until the key is pressed
    alone = practise(cell, Operator(settings, 0), 0, policy=lambda s: cell.command)
    assert alone.ticks == 65
    supervise = with_role(settings, "supervise")
    assert longest_episode(supervise) == 90
    attempt = practise(cell, Operator(supervise, 0), 0, policy=lambda s: cell.command)
    assert attempt.cause == "timeout"
    if stall == 0.6:
        assert attempt.takeovers == 1 and 40 < attempt.ticks < 65
    assert attempt.ticks <= 90
    if stall == 1.6:  # in control at about the limit, and one second more from then on
        assert attempt.takeovers == 1 and 65 < attempt.ticks


def test_the_tasks_own_limits_count_where_none_are_set() -> None:
    assert longest_episode(OperatorConfig()) == (16 + 0.2) / 0.04
    settings = OperatorConfig(role="supervise", cell=CellConfig(task="drawer"), limit=10.0)
    assert longest_episode(settings) == round((10 + 26 + 0.2) / 0.04)
