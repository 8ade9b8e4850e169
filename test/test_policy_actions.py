"""Actions, normaliser and observation: exact maths, checked by hand and by property."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import tiny_policy
from synthetic import reach

from dexpie_ros import geometry
from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.control.types import Observation, RobotState
from dexpie_ros.geometry import Pose
from dexpie_ros.policy import actions
from dexpie_ros.policy.normalizer import Normalizer, NormalizerError
from dexpie_ros.policy.observation import ObservationError, ObservationSpec

seeds = st.integers(0, 2**32 - 1)


def poses(rng, *lead, near_pi=False):
    axis = rng.normal(size=(*lead, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = rng.uniform(0, np.pi, (*lead, 1))
    if near_pi:
        angle = np.pi - 10.0 ** rng.uniform(-12, -2, (*lead, 1))
    return geometry.make_pose(geometry.rotation_exp(axis * angle), rng.uniform(-2, 2, (*lead, 3)))


@settings(max_examples=60, deadline=None)
@given(seeds, st.booleans())
def test_round_trip(seed, near_pi):
    rng = np.random.default_rng(seed)
    t_obs, tcp = poses(rng, near_pi=near_pi), poses(rng, 24, near_pi=near_pi)
    hand = rng.uniform(0, 1, (24, 6))
    tcp_again, hand_again = actions.decode(t_obs, actions.encode(t_obs, tcp, hand))
    assert np.abs(tcp_again - tcp).max() < 1e-12
    assert np.array_equal(hand_again, hand)


def test_golden_action():
    t_obs = geometry.make_pose(geometry.rotation_exp([0, 0, np.pi / 2]), [1.0, 2.0, 3.0])
    tcp = geometry.make_pose(np.eye(3), [1.0, 3.0, 3.0])
    action = actions.encode(t_obs, tcp[None], [[0, 0.2, 0.4, 0.6, 0.8, 1.0]])[0]
    expected = [1, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert np.allclose(action, expected, atol=1e-15)


def test_decoding_limits_the_hand_and_refuses_nonsense():
    good = actions.encode(np.eye(4), np.eye(4)[None], [[-0.5, 1.5, 0, 0, 0, 0]])
    assert actions.decode(np.eye(4), good)[1][0, :2].tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="not finite"):
        actions.decode(np.eye(4), np.full((1, 15), np.nan))
    with pytest.raises(ValueError, match="rot6d"):
        actions.decode(np.eye(4), np.zeros((1, 15)))


def test_normalizer_golden_numbers(tmp_path):
    norm = Normalizer.fit([[1.0, 5.0], [3.0, 5.0]], largest_position=0.2)
    assert norm.position_scale == pytest.approx(0.22)
    assert norm.mean.tolist() == [2.0, 5.0]
    assert norm.std.tolist() == [1.0, 1.0]  # a constant is left at scale 1
    action = np.array([0.11, -0.22, 0, 1, 0, 0, 0, 1, 0, 0, 0.5, 1, 0.25, 0, 0])
    expected = [0.5, -1, 0, 1, 0, 0, 0, 1, 0, -1, 0, 1, -0.5, -1, -1]
    assert np.allclose(norm.actions(action), expected)
    assert np.allclose(norm.invert_actions(norm.actions(action)), action)
    assert norm.observation([4.0, 1000.0]).tolist() == [2.0, 10.0]
    norm.save(tmp_path / "n.json")
    again = Normalizer.load(tmp_path / "n.json")
    assert again.to_dict() == norm.to_dict()


def test_a_held_tilt_does_not_become_the_loudest_input():
    spec = ObservationSpec(parts=("tcp", "hand", "objects"), object_names=("bottle", "platform"))
    least = spec.least_spread()
    assert least.shape == (spec.size,) == (33,)
    assert least[:10].tolist() == [0.02] * 3 + [0.1] * 6 + [0.05]
    assert least[15:24].tolist() == least[24:].tolist() == [0.02] * 3 + [0.1] * 6
    # Entry 3 turns by 0.002 in the data and by 0.05 (3 degrees) in a deployment.
    data = np.zeros((2, 33))
    data[:, 0], data[:, 3] = (-0.3, 0.3), (-0.002, 0.002)
    norm = Normalizer.fit(data, 0.2, least_spread=least)
    assert norm.std[[0, 3, 4]].tolist() == [0.3, 0.1, 1.0]
    seen = np.zeros(33)
    seen[3] = 0.05
    assert norm.observation(seen)[3] == pytest.approx(0.5)
    assert ObservationSpec(parts=(), images=("front",)).least_spread().shape == (0,)


def test_position_scale_does_not_depend_on_the_frame():
    rng = np.random.default_rng(3)
    spec = ObservationSpec(parts=("tcp",))
    from dexpie_ros.training.dataset import episode_windows

    windows = episode_windows(reach(1), spec, 24)
    turn = poses(rng)
    moved = reach(1)
    object.__setattr__(moved, "tcp", turn @ moved.tcp)
    object.__setattr__(moved, "command_tcp", turn @ moved.command_tcp)
    assert episode_windows(moved, spec, 24).largest_position == pytest.approx(
        windows.largest_position, abs=1e-12
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": "rows"}, "convert the data"),
        ({"std": [1.0, -1.0]}, "do not fit"),
        ({"mean": [1.0]}, "do not fit"),
        ({"mean": "x"}, "broken"),
        ({"position_scale": None}, "broken"),
    ],
)
def test_broken_normalizers_are_refused(tmp_path, change, message):
    values = Normalizer.fit([[1.0, 5.0]], 0.1).to_dict() | change
    (tmp_path / "n.json").write_text(json.dumps(values))
    with pytest.raises(NormalizerError, match=message):
        Normalizer.load(tmp_path / "n.json")


def test_normalizer_refuses_what_it_cannot_fit():
    with pytest.raises(NormalizerError, match="no training windows"):
        Normalizer.fit(np.zeros((0, 3)), 0.1)
    with pytest.raises(NormalizerError, match="not finite"):
        Normalizer.fit([[np.nan]], 0.1)
    with pytest.raises(NormalizerError, match="trained on 2"):
        Normalizer.fit([[1.0, 5.0]], 0.1).observation([1.0])


def live(episode, t):
    robot = RobotState(
        0,
        episode.joints[t],
        np.zeros(6),
        Pose.from_matrix(episode.tcp[t]),
        episode.hand[t],
        episode.hand_force[t],
    )
    thing = Pose(episode.objects[t, 0, :3], episode.objects[t, 0, 3:])
    return Observation(0, robot, {"bottle": thing})


def test_live_and_recorded_observations_are_built_alike():
    parts = ("hand_force", "objects_in_tcp", "tcp", "joints", "hand", "objects")
    spec = ObservationSpec(parts=parts, object_names=("bottle",))
    episode = reach(5)
    recorded = spec.from_episode(episode)
    assert recorded.shape == (len(episode), spec.size) == (60, 45)
    assert np.abs(spec.from_live(live(episode, 7)) - recorded[7]).max() < 1e-6
    # The order of the parts is the order of the vector.
    assert np.allclose(recorded[7, 15:18], episode.tcp[7, :3, 3])
    inside = geometry.relative(episode.tcp[7], geometry.make_pose(np.eye(3), recorded[7, 36:39]))
    assert np.allclose(recorded[7, 6:9], inside[:3, 3], atol=1e-6)


def test_missing_things_are_named():
    episode = reach(5)
    with pytest.raises(
        ObservationError, match=r"no objects cup .*trained on state: tcp \+ objects"
    ):
        spec = ObservationSpec(parts=("tcp", "objects"), object_names=("cup",))
        spec.from_episode(episode)
    with pytest.raises(ObservationError, match="no images front"):
        ObservationSpec(images=("front",)).from_live(live(episode, 0))
    with pytest.raises(ConfigError, match="object_names"):
        from_dict(ObservationSpec, {"parts": ["objects"]})
    with pytest.raises(ConfigError, match="parts"):
        from_dict(ObservationSpec, {"parts": ["tcp", "tcp"]})


LIVE = tiny_policy(scale=2.0)


@settings(max_examples=60, deadline=None)
@given(seeds, st.booleans())
def test_what_the_network_gets_of_a_prefix_is_the_commands_seen_from_the_newest_pose(seed, near_pi):
    """Through `Policy.sample`, the way of every live chunk: rebasing an older chunk's actions."""
    rng = np.random.default_rng(seed)
    old, new = poses(rng, 2, near_pi=near_pi)
    tcp, hand = poses(rng, 4, near_pi=near_pi), rng.uniform(0, 1, (4, 6))
    inner, given_to = LIVE.actor.sample, []

    def sample(features, noise, prefix, mask, *rest):
        given_to.append((prefix.double().numpy()[0], mask.numpy()[0]))
        return inner(features, noise, prefix, mask, *rest)

    LIVE.warm_up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LIVE.actor, "sample", sample)
        out_tcp, out_hand = LIVE.sample(np.zeros(15), new, None, (tcp, hand))
    ((known, mask),) = given_to
    assert mask.tolist() == [1.0] * 4 + [0.0] * 20
    assert not known[4:].any()
    seen = LIVE.normalizer.invert_actions(known[:4])
    # float32 on its way into the network; everything before is float64
    again, openings = actions.decode(new, seen)
    assert np.abs(again - tcp).max() < 2e-6
    assert np.abs(openings - hand).max() < 1e-6
    older = actions.unpack(actions.encode(old, tcp, hand))
    rebased = actions.pack(geometry.invert(new) @ old @ older, hand)  # T_new^-1 T_old T_rel
    assert np.abs(LIVE.normalizer.actions(rebased) - known[:4]).max() < 1e-6
    assert np.array_equal(out_tcp[:4], tcp)
    assert np.array_equal(out_hand[:4], hand)
