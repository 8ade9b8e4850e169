"""Round trips through other people's formats."""

import dataclasses
import json

import factories
import numpy as np
import pytest
from factories import Recipe

from dexpie_ros import geometry
from dexpie_ros.episodes import Collection, EpisodeError, read_episode
from dexpie_ros.episodes.annotations import annotate
from dexpie_ros.episodes.formats.as_bag import write_bag
from dexpie_ros.episodes.formats.authors import import_authors
from dexpie_ros.episodes.formats.lerobot_features import ACTION_NAMES, STATE_NAMES
from dexpie_ros.episodes.formats.lerobot_in import import_lerobot, read_lerobot
from dexpie_ros.episodes.formats.lerobot_out import export_lerobot
from dexpie_ros.episodes.formats.robomimic import export_robomimic

ARRAYS = (
    "time_ns", "tick", "tcp", "joints", "hand", "hand_force", "command_tcp", "command_hand",
    "source", "mode", "stalls", "proposal_tcp", "proposal_hand", "human_tcp", "human_hand",
    "objects", "contact", "flags",
)  # fmt: skip


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    for i in range(3):
        recipe = Recipe(
            steps=12 + i, seed=i, images=True, image_size=(48, 64), human=((3, 8),),
            state_rate_hz=60 if i == 1 else 25, events=((4, '{"label": "miss"}'),),
        )  # fmt: skip
        path = factories.write_episode(
            root / f"e{i}", recipe, outcome="failure" if i == 2 else "success", cause="tipped"
        )
    start, step = factories.START_NS, factories.STEP_NS
    annotate(
        path,
        interventions=[(start, start + 2 * step), (start + 12 * step, start + 14 * step)],
        stages=[(start + 4 * step, "place")],
    )
    return [read_episode(root / f"e{i}") for i in range(3)]


def equal(a, b, arrays=ARRAYS):
    for name in arrays:
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype and x.shape == y.shape, name
        assert x.tobytes() == y.tobytes() or np.array_equal(x, y, equal_nan=True), name


def test_lerobot_and_back_is_bit_exact(episodes, tmp_path):
    pytest.importorskip("pyarrow")
    export_lerobot(episodes, tmp_path / "lerobot", data_file_mb=0)
    again = read_lerobot(tmp_path / "lerobot")
    assert len(list((tmp_path / "lerobot/data/chunk-000").iterdir())) == 3
    for mine, true in zip(again, episodes, strict=True):
        equal(mine, true)
        assert (mine.info, mine.events, mine.object_names) == (
            true.info,
            true.events,
            true.object_names,
        )
        assert np.array_equal(mine.human, true.human)
        for camera in ("front", "wrist"):
            assert np.array_equal(mine.images(camera)[5], true.images(camera)[5])
    assert again[2].human.sum() == 4 and again[2].cause == "tipped"


def test_the_lerobot_files_follow_the_schema(episodes, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    root = export_lerobot(episodes, tmp_path / "lerobot")
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 25, 39)
    assert info["splits"] == {"train": "0:3"} and info["total_episodes"] == 3
    table = pq.read_table(root / info["data_path"].format(chunk_index=0, file_index=0))
    assert set(table.column_names) == set(info["features"])
    assert table["index"].to_pylist() == list(range(39))
    assert table["frame_index"].to_pylist()[:14] == [*range(12), 0, 1]
    assert table["timestamp"].to_pylist()[2] == pytest.approx(0.08)
    assert str(table.schema.field("action").type) == "fixed_size_list<element: float>[15]"
    rows = pq.read_table(root / "meta/episodes").to_pylist()
    assert [(r["dataset_from_index"], r["dataset_to_index"]) for r in rows] == [
        (0, 12),
        (12, 25),
        (25, 39),
    ]
    assert rows[0]["tasks"] == ["bottle"]
    action = np.stack(table["action"].to_numpy())
    stats = json.loads((root / "meta/stats.json").read_text())
    assert np.allclose(stats["action"]["mean"], action.mean(0), atol=1e-6)
    assert np.allclose(stats["action"]["std"], action.std(0), atol=1e-6)
    assert np.allclose(stats["action"]["max"], action.max(0))
    assert np.array(stats["observation.images.front"]["mean"]).shape == (3, 1, 1)
    assert len(STATE_NAMES) == 21 and len(ACTION_NAMES) == 15
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]


def test_lerobot_itself_opens_it(episodes, tmp_path, monkeypatch):
    module = pytest.importorskip(
        "lerobot.datasets.lerobot_dataset",
        reason="lerobot brings gigabytes of its own; `pip install lerobot` beside this package to check",
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root = export_lerobot(episodes, tmp_path / "lerobot")
    data = module.LeRobotDataset("dexpie/test", root=root, video_backend="pyav")
    assert (len(data), data.num_episodes) == (39, 3)
    item = data[13]
    assert item["observation.images.front"].shape == (3, 48, 64) and item["task"] == "bottle"
    # As arrow: the numpy format of `datasets` would round to float32.
    table = data.hf_dataset.with_format("arrow")[:]
    rows = np.array(table["dexpie.joints"].to_pylist())
    assert np.array_equal(rows[12:25], episodes[1].joints)


def test_import_makes_recorded_episodes(episodes, tmp_path):
    pytest.importorskip("pyarrow")
    export_lerobot(episodes, tmp_path / "lerobot")
    paths = import_lerobot(tmp_path / "lerobot", tmp_path / "bags")
    for path, true in zip(paths, episodes, strict=True):
        mine = read_episode(path)
        exact = [a for a in ARRAYS if not a.endswith("tcp") and a != "flags"]
        equal(mine, true, exact)
        for name in ("tcp", "command_tcp", "human_tcp"):
            assert np.allclose(getattr(mine, name), getattr(true, name), atol=1e-12, equal_nan=True)
        assert mine.outcome == true.outcome and not mine.partial
        assert (mine.events, mine.stages, mine.info) == (true.events, true.stages, true.info)
        assert np.array_equal(mine.human, true.human)
        assert (mine.intervention is None) == (true.intervention is None)
        assert np.array_equal(mine.images("wrist")[7], true.images("wrist")[7])


def test_writing_an_episode_as_a_bag_keeps_it(episodes, tmp_path):
    mine = read_episode(write_bag(tmp_path / "b", episodes[0]))
    equal(mine, episodes[0], [a for a in ARRAYS if not a.endswith("tcp")])
    assert np.allclose(mine.tcp, episodes[0].tcp, atol=1e-12)


def test_what_was_partial_stays_so(episodes, tmp_path):
    """Cut off after 8 steps, repaired, judged, exported: it does not come back as a whole one."""
    episode = dataclasses.replace(
        episodes[0], partial=True, problems=("its end is lost",), intervention=np.zeros(12, bool)
    )
    mine = read_episode(write_bag(tmp_path / "b", episode))
    assert mine.partial and "imported from: its end is lost" in mine.problems[0]
    assert mine.human.sum() == 0 and mine.source.any(), "corrected: nobody had a hand in it"
    assert Collection(tmp_path).entries[0].status == "repaired"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "meta/info.json",
            lambda v: v | {"codebase_version": "v2.1"},
            "convert_dataset_v21_to_v30",
        ),
        ("meta/info.json", lambda v: v | {"fps": 30}, "30 frames per second"),
        ("meta/info.json", lambda v: v | {"features": {}}, "data of another robot"),
        (
            "meta/info.json",
            lambda v: v | {"total_episodes": 9},
            "3 episodes, meta/info.json says 9",
        ),
        ("meta/info.json", lambda v: v | {"data_path": "x/{chunk_index}"}, "not a whole"),
        ("meta/info.json", lambda v: [], "cannot be read"),
    ],
)
def test_other_lerobot_data_is_refused_in_words(episodes, tmp_path, file, change, message):
    pytest.importorskip("pyarrow")
    root = export_lerobot(episodes, tmp_path / "lerobot")
    values = change(json.loads((root / file).read_text()))
    (root / file).write_text(json.dumps(values))
    with pytest.raises(EpisodeError, match=message):
        read_lerobot(root)
    with pytest.raises(EpisodeError, match="not empty"):
        export_lerobot(episodes, root)


def test_who_drove_is_told_or_recorded_never_guessed(episodes, tmp_path):
    pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    root = export_lerobot(episodes[:1], tmp_path / "l")
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    ours = [name for name in table.column_names if name.startswith("dexpie.")]
    pq.write_table(table.drop_columns([*ours, "intervention"]), path)
    with pytest.raises(EpisodeError, match=r"episode 0: no `intervention`.*--driver human"):
        read_lerobot(root)
    (shown,), (deployed,) = read_lerobot(root, "human"), read_lerobot(root, "policy")
    assert (shown.info.kind, deployed.info.kind) == ("demonstration", "deployment")
    assert shown.human.all() and not deployed.human.any()


def test_lost_commands_are_not_exported(episodes, tmp_path):
    pytest.importorskip("pyarrow")
    episode = read_episode(episodes[0].path)
    episode.command_hand[4] = np.nan
    with pytest.raises(EpisodeError, match="1 of 12 steps lack state or command"):
        export_lerobot([episodes[1], episode], tmp_path / "l")
    with pytest.raises(EpisodeError, match="no episodes to export"):
        export_lerobot([], tmp_path / "l")
    assert not list(tmp_path.iterdir()), "half of a data set is not left behind"
    assert len(read_lerobot(export_lerobot([episodes[1]], tmp_path / "l"))) == 1
    pytest.importorskip("h5py")
    with pytest.raises(EpisodeError, match="actions were lost"):
        export_robomimic([episode], tmp_path / "r.hdf5")
    assert not (tmp_path / "r.hdf5").exists()


def test_robomimic(episodes, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = export_robomimic(episodes, tmp_path / "r.hdf5", image_size=32)
    with h5py.File(path) as file:
        data = file["data"]
        assert data.attrs["total"] == 39 and "env_name" in json.loads(data.attrs["env_args"])
        demo = data["demo_1"]
        assert demo.attrs["num_samples"] == 13
        assert np.array_equal(demo["obs/robot0_joint_pos"][:], episodes[1].joints)
        assert np.array_equal(demo["next_obs/robot0_joint_pos"][:-1], episodes[1].joints[1:])
        assert np.array_equal(
            demo["actions"][:, :3], episodes[1].command_tcp[:, :3, 3].astype("f4")
        )
        assert np.abs(demo["actions"][:]).max() <= 1
        assert demo["rewards"][:].tolist() == [0.0] * 12 + [1.0] and demo["dones"][-1] == 1
        assert np.array_equal(
            demo["obs/agentview_image"][3], episodes[1].images("front").shrunk(3, 32)
        )
        quaternion = demo["obs/robot0_eef_quat"][:]
        assert np.allclose(geometry.quaternion_to_matrix(quaternion), episodes[1].tcp[:, :3, :3])
        assert file["mask/success"][:].tolist() == [b"demo_0", b"demo_1"]
        assert file["mask/failure"][:].tolist() == [b"demo_2"]


def authors_arrays(steps, seed=0):
    recipe = Recipe(seed=seed)
    poses = np.stack([factories.tcp_at(recipe, k / 30).matrix() for k in range(steps + 1)])
    joints = np.stack([factories.joints_at(recipe, k / 30) for k in range(steps)])
    state = np.concatenate(
        [joints, poses[:-1, :3, 3], geometry.rotation_log(poses[:-1, :3, :3])], axis=1
    )
    rows = np.concatenate([poses[1:, 0, :3], poses[1:, 1, :3]], axis=1)
    hand = np.stack([factories.hand_at(recipe, k / 30) for k in range(steps)])
    action = np.concatenate([poses[1:, :3, 3], rows, hand], axis=1)
    images = np.zeros((steps, 20, 30, 3), np.uint8)
    images[..., 0] = 3 * np.arange(steps)[:, None, None]
    return poses, state, action, images


def test_the_authors_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    poses, state, action, images = authors_arrays(45)
    stamps = 5_000_000_000 + np.rint(np.arange(45) * 1e9 / 30).astype(np.int64)
    with h5py.File(tmp_path / "episode7.h5", "w") as file:
        file["color"], file["wrist_color"] = images, images
        file["env_qpos_proprioception"], file["action"] = state, action.astype(np.float32)
        file["intervention"] = (np.arange(45) >= 30).astype(np.uint8)
        file["timestamps/t_anchor_ns"] = stamps
        file.attrs["success"] = False
    (path,) = import_authors(
        tmp_path / "episode7.h5", tmp_path / "out", kind="correction", task="a"
    )
    episode = read_episode(path)
    # 44 intervals of 1/30 s are 1.4667 s: 37 control steps from the first stamp on.
    assert len(episode) == 37 and episode.time_ns[0] == stamps[0]
    assert np.array_equal(np.diff(episode.time_ns), np.full(36, 40_000_000))
    assert (episode.outcome, episode.info.kind) == ("failure", "correction")
    assert np.array_equal(np.flatnonzero(episode.human), np.arange(25, 37))
    assert np.allclose(episode.tcp[0], poses[0], atol=1e-9)
    # Step 6 lies at 0.24 s, between pictures 7 and 8: interpolated command, picture 7.
    between = geometry.interpolate(poses[8], poses[9], 0.2)
    assert np.allclose(episode.command_tcp[6], between, atol=1e-6)
    assert abs(float(episode.images("front")[6][..., 0].mean()) - 21) < 2
    assert np.allclose(episode.command_hand[6], action[7, 9:], atol=1e-6)
    assert np.isnan(episode.hand_force).all() and episode.info.note["hand"].startswith("commanded")
    assert not episode.flags.any()


def test_the_authors_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    parts = [authors_arrays(n, seed) for seed, n in enumerate((20, 31))]
    store = zarr.open_group(str(tmp_path / "task1"), mode="w", zarr_format=2)
    for key, index in (("state", 1), ("action", 2), ("img", 3)):
        values = np.concatenate([p[index] for p in parts])
        store.create_group("data") if key == "state" else None
        store["data"].create_array(key, data=values.astype("f4") if index < 3 else values)
    meta = store.create_group("meta")
    meta.create_array("episode_ends", data=np.array([20, 51]))
    meta.create_array("success", data=np.array([True, False]))
    with pytest.raises(EpisodeError, match="--driver human"):
        import_authors(tmp_path / "task1", tmp_path / "out")
    paths = import_authors(tmp_path / "task1", tmp_path / "out", rate_hz=25, driver="human")
    first, second = (read_episode(path) for path in paths)
    assert (len(first), len(second)) == (20, 31) and first.success and not second.success
    assert first.human.all() and first.info.note["times"] == "made up from 25 Hz"
    assert np.allclose(second.command_tcp[4], parts[1][0][5], atol=1e-6)
    assert np.allclose(second.joints[4], parts[1][1][4, :6], atol=1e-6)


def test_broken_authors_files_are_named(tmp_path):
    h5py = pytest.importorskip("h5py")
    with pytest.raises(EpisodeError, match="no such file"):
        import_authors(tmp_path / "none.h5", tmp_path / "out")
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    with pytest.raises(EpisodeError, match=r"bad\.h5.*HDF5"):
        import_authors(tmp_path / "bad.h5", tmp_path / "out")
    _, state, action, _ = authors_arrays(8)
    for name, values in (("state", state[:, :11]), ("action", action[:5])):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["env_qpos_proprioception"] = values if name == "state" else state
            file["action"] = values if name == "action" else action
        with pytest.raises(EpisodeError, match="has shape"):
            import_authors(tmp_path / f"{name}.h5", tmp_path / "out", driver="human")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(EpisodeError, match="env_qpos_proprioception"):
        import_authors(tmp_path / "empty.h5", tmp_path / "out")


def test_lerobot_data_without_our_own_columns(episodes, tmp_path):
    """What another tool keeps of an export (only LeRobot's own columns) is read to float32."""
    pq = pytest.importorskip("pyarrow.parquet")
    root = export_lerobot(episodes, tmp_path / "lerobot")
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop([c for c in table.column_names if c.startswith("dexpie.")]), path)
    meta = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(meta)
    pq.write_table(rows.drop(["dexpie_info", "dexpie_more"]), meta)
    mine = read_lerobot(root)
    assert [len(e) for e in mine] == [12, 13, 14] and mine[0].info.task == "bottle"
    for a, b in zip(mine, episodes, strict=True):
        assert np.allclose(a.tcp, b.tcp, atol=1e-6) and np.allclose(a.joints, b.joints, atol=1e-6)
        assert np.allclose(a.command_tcp, b.command_tcp, atol=1e-6)
        assert np.array_equal(a.human, b.human) and np.isnan(a.hand_force).all()
        assert a.outcome == "" and a.object_names == ()
    paths = import_lerobot(root, tmp_path / "bags")
    assert len(read_episode(paths[1])) == 13
