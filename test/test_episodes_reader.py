"""read_episode against the ground truth that the factory wrote."""

from dataclasses import replace

import factories
import mutations
import numpy as np
import pytest
from factories import Recipe

from dexpie_ros import geometry, messages
from dexpie_ros.control.types import Source
from dexpie_ros.episodes import AlignConfig, Collection, EpisodeError, read_episode
from dexpie_ros.episodes.bag_writer import BagWriter


def test_what_was_stamped_at_the_step_comes_back_bit_for_bit(tmp_path):
    recipe = Recipe(steps=20, human=((5, 9),))
    episode = read_episode(factories.write_episode(tmp_path / "a", recipe))
    truth = [factories.tcp_at(recipe, k / 25) for k in range(20)]
    assert np.array_equal(episode.tcp, np.stack([p.matrix() for p in truth]))
    assert np.array_equal(
        episode.hand, np.stack([factories.hand_at(recipe, k / 25) for k in range(20)])
    )
    assert np.array_equal(
        episode.joints, np.stack([factories.joints_at(recipe, k / 25) for k in range(20)])
    )
    steps = [factories.control_step(recipe, k) for k in range(20)]
    assert np.array_equal(episode.command_tcp, np.stack([s.command.tcp.matrix() for s in steps]))
    assert np.array_equal(episode.command_hand, np.stack([s.command.hand for s in steps]))
    assert np.array_equal(episode.hand_force[:, 0], 0.1 * np.arange(20))
    assert np.array_equal(np.flatnonzero(episode.human), [5, 6, 7, 8])
    assert episode.source[4] == Source.POLICY and episode.tick[7] == 7
    assert np.array_equal(np.flatnonzero(np.isnan(episode.proposal_hand[:, 0])), [5, 7])
    assert np.array_equal(np.flatnonzero(~np.isnan(episode.human_tcp[:, 0, 0])), [5, 6, 7, 8])
    assert episode.object_names == factories.OBJECTS
    assert np.allclose(episode.objects[:, 0, 2], episode.tcp[:, 2, 3] - 0.01, atol=1e-15)
    assert np.array_equal(np.flatnonzero(episode.contact), [*range(5, 10), *range(15, 20)])
    assert episode.success and not episode.partial and not episode.problems
    assert not episode.flags.any() and len(episode) == 20


def test_poses_between_samples_are_interpolated_on_the_geodesic(tmp_path):
    recipe = Recipe(steps=30, state_rate_hz=60.0)
    episode = read_episode(factories.write_episode(tmp_path / "a", recipe))
    for k in (1, 7, 28):
        low = int(np.floor(k / 25 * 60))
        a, b = (factories.tcp_at(recipe, j / 60).matrix() for j in (low, low + 1))
        expected = geometry.interpolate(a, b, k / 25 * 60 - low)
        assert np.allclose(episode.tcp[k], expected, atol=1e-8)
        # Joints are a state: the newest sample at or before the step, never one from the future.
        assert np.array_equal(episode.joints[k], factories.joints_at(recipe, low / 60))


def test_latency_moves_a_stream_and_leaves_the_others(tmp_path):
    path = factories.write_episode(tmp_path / "a", Recipe(steps=10))
    plain = read_episode(path)
    moved = read_episode(path, AlignConfig(latency_ms={"/hand/joint_states": 40.0}))
    # Stamped 40 ms late: what is stamped at step k + 1 was the state at step k.
    assert np.array_equal(moved.hand[:-1], plain.hand[1:])
    assert np.array_equal(moved.tcp, plain.tcp)


def test_images_belong_to_their_steps(tmp_path):
    recipe = Recipe(steps=12, images=True, image_size=(48, 64))
    episode = read_episode(factories.write_episode(tmp_path / "a", recipe))
    front, wrist = episode.images("front"), episode.images("wrist")
    assert len(front) == 12 and front[0].shape == (48, 64, 3)
    for k in (0, 5, 11):
        assert abs(float(front[k][..., 0].mean()) - 4 * k) < 2
        assert abs(float(front[k][..., 1].mean()) - 60) < 2
        assert abs(float(wrist[k][..., 1].mean()) - 180) < 2
    assert front.shrunk(3).shape == (224, 224, 3)
    with pytest.raises(EpisodeError, match="no images of camera side; recorded: front, wrist"):
        episode.images("side")


def test_events_carry_their_own_time_if_they_have_one(tmp_path):
    events = (
        (3, '{"label": "miss"}'),
        (5, f'{{"time_ns": {factories.START_NS + 7}}}'),
        (6, "plain"),
    )
    episode = read_episode(factories.write_episode(tmp_path / "a", Recipe(steps=9, events=events)))
    assert episode.events[0] == (factories.START_NS + 7, events[1][1])
    assert episode.events[1] == (factories.START_NS + 121_000_000, events[0][1])


def test_collection_lists_filters_and_finds(tmp_path):
    factories.write_collection(tmp_path, 8)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/episode.json").write_text("{")
    episodes = Collection(tmp_path)
    assert len(episodes) == 9
    assert [e.id for e in episodes.filter(status="broken")] == ["broken"]
    assert "no JSON" in episodes.find("broken").error
    assert [e.id for e in episodes.filter(outcome="failure")] == ["e002", "e006"]
    assert [e.id for e in episodes.filter(kind=("demonstration", "correction"))] == [
        "e000", "e003", "e004", "e007",
    ]  # fmt: skip
    assert [e.id for e in episodes.filter(pair_id="pair1")] == ["e006", "e007"]
    assert episodes.find("e003").content.human_steps == 15
    with pytest.raises(EpisodeError, match="8 episodes are called e00"):
        episodes.find("e00")
    with pytest.raises(EpisodeError, match="no episode x"):
        episodes.find("x")
    assert [e.id for e in episodes.filter(outcome="failure").read()] == ["e002", "e006"]


def test_a_dead_camera_costs_its_images_and_not_the_episode(tmp_path):
    path = factories.write_episode(tmp_path / "a", Recipe(steps=80, images=True))

    def front_dies(items):
        front = "/camera/front/color/image_raw/compressed"
        return [m for m in items if m.topic != front or m.log < factories.START_NS + 200_000_000]

    mutations.rewrite(front_dies)(path)
    episode = read_episode(path)
    assert list(episode.cameras) == ["wrist"] and not episode.flags.any()
    assert any("this camera is left out" in problem for problem in episode.problems)


@pytest.mark.parametrize(
    ("rate", "lost", "flagged"),
    [
        # 125 Hz: one lost sample is 8 ms and within tolerance, two are 16 ms and not.
        (125.0, range(250, 251), 0),
        (125.0, range(248, 251), 1),
        # 25 Hz: every lost sample makes its step 40 ms older than it should be.
        (25.0, range(50, 51), 1),
        (25.0, range(50, 53), 3),
    ],
)
def test_steps_are_flagged_by_how_much_older_a_sample_is_than_it_should_be(
    tmp_path, rate, lost, flagged
):
    path = factories.write_episode(tmp_path / "a", Recipe(steps=100, state_rate_hz=rate))

    def lose(items):
        mine = [m for m in items if m.topic == "/arm/joint_states"]
        gone = {id(mine[k]) for k in lost}
        return [m for m in items if id(m) not in gone]

    mutations.rewrite(lose)(path)
    episode = read_episode(path)
    assert episode.flags.sum() == flagged
    assert bool(episode.problems) == bool(flagged)


@pytest.mark.parametrize("before", [40, 10], ids=["counted_over", "counted_beyond"])
def test_an_arbiter_that_was_started_anew_ends_what_is_aligned(tmp_path, monkeypatch, before):
    made = factories.control_step

    def counted_anew(recipe, k):
        return replace(made(recipe, k), tick=1 + (k if k < before else k - before))

    monkeypatch.setattr(factories, "control_step", counted_anew)
    episode = read_episode(factories.write_episode(tmp_path / "a", factories.Recipe(steps=60)))
    assert len(episode) == before and episode.tick.tolist() == list(range(1, before + 1))
    assert episode.partial
    assert any(f"the {60 - before} steps since then" in problem for problem in episode.problems)


def test_a_bag_of_another_program_is_told_from_a_broken_episode(tmp_path):
    store = messages.bag_typestore()
    kind = "std_msgs/msg/String"
    with BagWriter(tmp_path / "foreign", durable=False) as writer:
        writer.add_topic("/chatter", kind, store.generate_msgdef(kind, ros_version=2)[0], "", "")
        writer.finish({})
    for read in (read_episode, lambda path: Collection(path).entries[0].info):
        with pytest.raises(EpisodeError, match="another program") as caught:
            read(tmp_path / "foreign")
        assert str(tmp_path / "foreign") in str(caught.value)
        assert "import" not in str(caught.value) and "discard" not in str(caught.value)


def test_a_wild_proposal_does_not_cost_the_episode(tmp_path):
    """What was executed went through the limits; what a policy or a person wanted did not."""
    path = factories.write_episode(tmp_path / "e", Recipe(steps=10))

    def wild(message):
        message.has_proposal = True
        message.proposal.hand = message.command.hand * 0 + 7.0
        message.proposal.tcp.position.x = 40.0

    def change(items):
        for m in items:
            if m.topic == mutations.STEP:
                m.cdr = mutations._with(m.cdr, "dexpie_msgs/msg/ControlStep", wild)
        return items

    mutations.rewrite(change)(path)
    episode = read_episode(path)
    assert (episode.proposal_hand == 7.0).all() and (episode.proposal_tcp[:, 0, 3] == 40.0).all()
    assert not episode.problems and episode.command_hand.max() <= 1.0
