"""Asynchronous inference against the real arbiter in virtual time."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policies import tiny_config, tiny_policy

from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.types import STEP_NS, Command, Mode, Observation, RobotState, Source
from dexpie_ros.geometry import Pose
from dexpie_ros.policy.asynchronous import AsyncConfig, AsyncPolicy
from dexpie_ros.policy.observation import ObservationError, ObservationSpec
from dexpie_ros.policy.policy import prefix_arrays
from dexpie_ros.policy.settings import InferenceSettings, PrefixConfig

START = 1_700_000_000_000_000_000
HOME = Pose(np.array([0.4, 0.0, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]))


class Bench:
    """Arbiter, policy and a robot that follows at once, tick by tick."""

    def __init__(self, delays, policy=None, human=None, **config):
        self.config = AsyncConfig(**config)
        self.policy = AsyncPolicy(policy or tiny_policy(), self.config)
        self.arbiter = Arbiter(
            ArbiterConfig(
                max_delay=self.config.max_delay,
                require_alignment=False,
            )
        )
        self.delays, self.arriving = iter(delays), []
        self.robot = RobotState(START, np.zeros(6), np.zeros(6), HOME, np.full(6, 0.5))
        self.tick, self.steps, self.chunks = 0, [], []
        self.policy.reset(7)
        assert self.arbiter.start("deployment")[0]

    def run(self, ticks, follower=None):
        for _ in range(ticks):
            now = START + self.tick * STEP_NS
            due = [chunk for at, chunk in self.arriving if at <= self.tick]
            self.arriving = [item for item in self.arriving if item[0] > self.tick]
            for chunk in due:
                self.arbiter.add_chunk(self.policy.arrived(chunk, now))
            robot = replace(self.robot, time_ns=now)
            step = self.arbiter.step(now, robot, follower)
            chunk = self.policy.step(step, Observation(now, robot))
            if chunk is not None:
                self.chunks.append(chunk)
                self.arriving.append((self.tick + next(self.delays), chunk))
            self.robot = replace(robot, tcp=step.command.tcp, hand=step.command.hand)
            self.steps.append(step)
            self.tick += 1
        return self


def jumps(steps):
    positions = np.array([s.command.tcp.position for s in steps])
    return np.linalg.norm(np.diff(positions, axis=0), axis=1)


def forever(values):
    while True:
        yield from values


def recorded_delays(n, largest):
    """Delays that sit at one value for a while and then jump, as a loaded machine's do."""
    rng = np.random.default_rng(n)
    return [int(d) for d in np.repeat(rng.integers(0, largest + 1, n), rng.integers(1, 9, n))]


@pytest.mark.parametrize("largest", [1, 4])
def test_no_stall_in_ten_thousand_steps_for_delays_up_to_n(largest):
    bench = Bench(forever(recorded_delays(60, largest))).run(10_000)
    waited = next(i for i, s in enumerate(bench.steps) if s.source == Source.POLICY)
    assert waited <= largest + 1  # only the first chunk is waited for
    assert bench.steps[-1].stalls == 0
    assert all(s.source == Source.POLICY for s in bench.steps[waited:])
    assert bench.policy.statistics().lost == 0
    # One inference for each execution horizon, each anchored to what really executed.
    assert len(bench.chunks) == pytest.approx(10_000 / 20, abs=2)
    assert all(chunk.prefix_length == 4 for chunk in bench.chunks)
    by_time = {s.time_ns: s for s in bench.steps}
    for chunk in bench.chunks[:-1]:
        for k in range(4):
            done = by_time[chunk.due_ns(k)].command
            # The limiter goes through rotation vectors: equal up to rounding.
            assert np.abs(done.tcp.position - chunk.positions[k]).max() < 1e-12
            assert np.abs(done.tcp.quaternion - chunk.quaternions[k]).max() < 1e-12
            assert np.abs(done.hand - chunk.hand[k]).max() < 1e-12


@pytest.mark.parametrize("slower", [1.0, 6.0])
def test_no_stall_with_latencies_of_a_live_run(slower):
    """As they were measured, and as on a machine so much slower that they fill 1 to n steps."""
    recorded = json.loads((Path(__file__).parent / "data" / "latencies.json").read_text())
    delays = [int(np.ceil(slower * ms / 40.0)) for ms in recorded["latency_ms"]]
    assert max(delays) == (1 if slower == 1.0 else 4)
    bench = Bench(forever(delays)).run(2_000)
    assert bench.steps[-1].stalls == 0
    assert all(s.source == Source.POLICY for s in bench.steps[delays[0] + 1 :])
    assert len(bench.chunks) == pytest.approx(2_000 / 20, abs=2)
    assert bench.policy.statistics().lost == 0


@pytest.mark.parametrize("horizon", [8, 12])
def test_a_smaller_execution_horizon_looks_more_often(horizon):
    bench = Bench(forever([3]), execution_horizon=horizon).run(400)
    assert bench.steps[-1].stalls == 0
    gaps = np.diff([chunk.time_ns for chunk in bench.chunks[1:]]) // STEP_NS
    assert set(gaps) == {horizon}


def test_delays_beyond_n_hold_and_recover_without_a_jump():
    bench = Bench(forever([2, 11, 3, 9, 24, 4])).run(600)
    assert bench.steps[-1].stalls > 0
    pairs = list(zip(bench.steps, bench.steps[1:]))
    for before, during in pairs:
        if during.source == Source.HOLD:
            assert np.array_equal(before.command.tcp.position, during.command.tcp.position)
    chunks = {chunk.time_ns: chunk for chunk in bench.chunks}
    resumed = [(a, b) for a, b in pairs if a.source == Source.HOLD and b.source == Source.POLICY]
    assert len(resumed) > 10
    for held, step in resumed[1:]:  # to the first one nothing came before
        chunk = chunks[step.chunk_time_ns]
        now = chunk.index_at(step.time_ns)
        # What is proposed is due now, on a path that begins where the robot waited.
        assert np.array_equal(step.proposal.tcp.position, chunk.positions[now])
        started = chunk.positions[min(now, chunk.prefix_length - 1)]
        assert np.abs(started - held.command.tcp.position).max() < 1e-9
    assert bench.steps[-1].mode == Mode.POLICY
    assert sum(s.source == Source.POLICY for s in bench.steps[-100:]) > 50


def test_a_chunk_that_never_arrives_is_asked_for_again():
    bench = Bench([1, 10**9, *[1] * 100]).run(200)
    assert bench.policy.statistics().lost == 1
    assert bench.steps[-1].source == Source.POLICY


def test_synchronous_mode_waits_and_skips_nothing():
    bench = Bench(forever([3]), mode="sync", max_delay=0).run(300)
    assert all(chunk.prefix_length == 0 for chunk in bench.chunks)
    drive = [s.source == Source.POLICY for s in bench.steps]
    runs = "".join("x" if d else "." for d in drive).strip(".").split(".")
    runs = [len(r) for r in runs if r]
    assert set(runs[:-1]) == {24}  # every action of every chunk
    assert bench.steps[-1].stalls > 0


def test_human_driving_gets_proposals_and_hands_back_with_his_last_commands():
    bench = Bench(forever([2]))
    follower = Command(HOME, np.full(6, 0.2))
    bench.run(30, follower)
    assert bench.arbiter.toggle()[0]
    bench.chunks.clear()
    bench.run(50, follower)
    assert [c.prefix_length for c in bench.chunks] == [0, 0, 0]
    assert np.diff([c.time_ns for c in bench.chunks]).tolist() == [20 * STEP_NS] * 2
    last = bench.steps[-1].command
    assert bench.arbiter.toggle()[0]
    bench.chunks.clear()
    bench.run(10)
    chunk = bench.chunks[0]
    assert chunk.prefix_length == 4
    assert all(np.array_equal(chunk.hand[k], last.hand) for k in range(4))
    assert bench.steps[-1].source == Source.POLICY
    assert len(bench.chunks) == 1
    assert jumps(bench.steps).max() < 0.05


def test_chunks_are_deterministic_and_depend_on_the_episode_seed():
    first, second = (Bench(forever([2])).run(100).chunks for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.hand, b.hand)
    third = Bench(forever([2]))
    third.policy.reset(8)
    assert not np.array_equal(third.run(10).chunks[0].positions, first[0].positions)


def test_statistics_count_latency_and_prefixes():
    bench = Bench(forever([1])).run(100)
    statistics = bench.policy.statistics()
    assert statistics.inferences == len(bench.chunks)
    assert 0 < statistics.p50_ms <= statistics.p95_ms <= statistics.p99_ms
    assert statistics.prefix_length == statistics.mean_prefix_length == 4
    assert bench.policy.delay_steps(99) >= 1
    assert all(chunk.latency_ns > 0 and chunk.policy_id == "tiny" for chunk in bench.chunks)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="H - s"):
        AsyncPolicy(tiny_policy(), AsyncConfig(execution_horizon=22))
    policy = tiny_policy(prefix=PrefixConfig(max_delay=2))
    with pytest.raises(ValueError, match="trained with prefixes up to 2"):
        AsyncPolicy(policy, AsyncConfig())


def test_more_steps_than_the_schedule_has_are_refused():
    with pytest.raises(ValueError, match=r"steps 101 exceeds diffusion\.train_steps = 100"):
        AsyncPolicy(tiny_policy(), AsyncConfig(), InferenceSettings(steps=101))


def test_without_prefixes_their_length_in_training_does_not_matter():
    policy = tiny_policy(prefix=PrefixConfig(max_delay=2))
    bench = Bench(forever([2]), policy=policy, mode="sync").run(40)
    assert bench.config.max_delay == 4
    assert any(s.source == Source.POLICY for s in bench.steps)


def test_an_observation_without_its_objects_is_refused():
    spec = ObservationSpec(parts=("tcp", "objects"), object_names=("bottle",))
    bench = Bench([0], policy=tiny_policy(observation=spec))
    with pytest.raises(ObservationError, match="no objects bottle"):
        bench.run(1)


def test_prefix_forms_agree():
    commands = [Command(HOME, np.full(6, 0.1 * k)) for k in range(6)]
    poses = np.array([c.tcp.matrix() for c in commands])
    hands = np.array([c.hand for c in commands])
    for a, b in zip(prefix_arrays(commands, 4), prefix_arrays((poses, hands), 4), strict=True):
        assert np.array_equal(a, b)
    assert [len(part) for part in prefix_arrays((), 4)] == [0, 0]
    with pytest.raises(ValueError, match="expected"):
        prefix_arrays((poses, hands[:3]), 4)
    assert tiny_config().action.horizon == 24
