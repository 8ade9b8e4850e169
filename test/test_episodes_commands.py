"""`dexpie episodes ...` as a person types it."""

import argparse
import json
import shutil

import factories
import pytest

from dexpie_ros.episodes import Collection, EpisodeError, read_episode
from dexpie_ros.episodes.annotations import AnnotationConflict, read_annotations
from dexpie_ros.episodes.commands import add_parser


def run(*arguments, play=None):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(), play)
    options = parser.parse_args(["episodes", *map(str, arguments)])
    return options.run(options)


@pytest.fixture
def root(tmp_path):
    return factories.write_collection(tmp_path / "c", 4)


def test_list_with_filters(root, capsys):
    assert run("list", root, "--outcome", "failure") == 0
    out = capsys.readouterr().out
    assert "e002" in out and "tipped" in out and "e001" not in out and "1 episodes" in out
    run("list", root, "--kind", "demonstration", "--kind", "correction", "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["episode_id"] for row in rows] == ["e000", "e003"]
    assert rows[1]["human_steps"] == 15
    run("list", root, "--cause", "tipped", "--json")
    assert json.loads(capsys.readouterr().out)["episode_id"] == "e002"


def test_annotate_as_the_manual_says(root, capsys):
    run("annotate", "e001", "--root", root, "--outcome", "failure", "--cause", "collision",
        "--exclude", "critic", "--author", "ann")  # fmt: skip
    assert "e001: revision 1" in capsys.readouterr().out
    info = Collection(root).find("e001").info
    assert (info.outcome, info.cause, info.use_for_critic) == ("failure", "collision", False)
    run("list", root, "--use-for", "critic")
    assert "e001" not in capsys.readouterr().out
    run("annotate", root / "e001", "--stage-from", "0.4=place", "--intervention", "0.2:0.6")
    episode = read_episode(root / "e001")
    assert episode.stage_names[9:11] == ("", "place") and episode.human.sum() == 10
    run("annotate", "e001", "--root", root, "--intervention", "none")
    assert read_episode(root / "e001").human.sum() == 0
    run("annotate", "e001", "--root", root, "--revert", "0")
    assert Collection(root).find("e001").info.outcome == "success"
    assert read_annotations(root / "e001").revision == 4
    with pytest.raises(AnnotationConflict):
        run("annotate", "e001", "--root", root, "--cause", "x", "--revision", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["e001"], "nothing to annotate"),
        (["e009", "--cause", "x"], "no episode e009"),
        (["e001", "--stage-from", "soon=x"], "no number of seconds"),
        (["e001", "--exclude", "actor", "--include", "actor"], "decide for one"),
    ],
)
def test_mistakes_are_one_line(root, arguments, message):
    with pytest.raises(EpisodeError, match=message) as caught:
        run("annotate", *arguments, "--root", root)
    assert "\n" not in str(caught.value)


def test_show_and_report(root, capsys, tmp_path):
    run("annotate", "e003", "--root", root, "--note", "slow", "--author", "ann")
    capsys.readouterr()
    assert run("show", "e003", "--root", root) == 0
    out = capsys.readouterr().out
    assert "correction of bottle" in out and "55 control steps, 15 by the operator" in out
    assert "/control/step" in out and "annotation 1" in out and "who drives" in out
    run("report", root, "--picture", tmp_path / "p.png")
    out = capsys.readouterr().out
    assert "4 episodes" in out and (tmp_path / "p.png").stat().st_size > 5000


def test_repair(root, capsys):
    path = root / "e001"
    bag = path / "e001_0.mcap"
    bag.write_bytes(bag.read_bytes()[:-3000])
    text = (path / "episode.json").read_text()
    (path / "episode.json").write_text(text.replace('"finished"', '"recording"'))
    shutil.copytree(path, root / "e009")
    (root / "e009/e001_0.mcap").write_bytes(b"")
    assert run("repair", root) == 1
    captured = capsys.readouterr()
    assert "e001" in captured.out and "not repaired" in captured.err
    statuses = {entry.path.name: entry.status for entry in Collection(root)}
    assert (statuses["e001"], statuses["e009"]) == ("repaired", "recording")


def test_export_and_import(root, capsys, tmp_path):
    pytest.importorskip("pyarrow")
    run("export", root, "--format", "lerobot", "--output", tmp_path / "l", "--outcome", "success")
    assert "3 episodes" in capsys.readouterr().out
    run("import", tmp_path / "l", "--format", "lerobot", "--output", tmp_path / "again")
    assert [e.id for e in Collection(tmp_path / "again")] == ["e000", "e001", "e003"]
    pytest.importorskip("h5py")
    run("export", root, "--format", "robomimic", "--output", tmp_path / "r.hdf5")
    assert (tmp_path / "r.hdf5").is_file()


def test_replay_on_the_terminal_or_by_the_graph(root, capsys):
    assert run("replay", root / "e000", "--rate", "1000", "--topic", "/control/step") == 0
    assert capsys.readouterr().out.count("/control/step") == 40
    with pytest.raises(EpisodeError, match="needs the ROS graph"):
        run("replay", root / "e000", "--execute")
    seen = []
    run("replay", "e000", "--root", root, "--execute", play=lambda o: seen.append(o.execute) or 0)
    assert seen == [True]


def test_a_directory_without_episodes_is_said(tmp_path):
    with pytest.raises(EpisodeError, match="not an episode"):
        run("show", tmp_path)
    with pytest.raises(EpisodeError, match="no such directory"):
        run("list", tmp_path / "nowhere")
