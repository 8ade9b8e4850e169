"""`dexpie episodes ...` as a person types it."""

import argparse
import json
import shutil

import factories
import numpy as np
import pytest

from dexpie_ros.config import ConfigError
from dexpie_ros.episodes import Collection, EpisodeError, read_episode
from dexpie_ros.episodes.annotations import AnnotationConflict, read_annotations
from dexpie_ros.episodes.bag_writer import BagWriter
from dexpie_ros.episodes.commands import add_parser
from dexpie_ros.episodes.formats.lerobot_in import read_lerobot


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
    run("annotate", "e001", "--root", root, "--stage-from", "none")
    assert read_episode(root / "e001").stages == ()
    run("annotate", "e001", "--root", root, "--revert", "0")
    assert Collection(root).find("e001").info.outcome == "success"
    assert read_annotations(root / "e001").revision == 5
    run("annotate", "e001", "--root", root, "--intervention", "0:1.8")
    assert read_episode(root / "e001").human.all()
    assert Collection(root).find("e001").content.human_steps == 45
    with pytest.raises(AnnotationConflict):
        run("annotate", "e001", "--root", root, "--cause", "x", "--revision", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["e001"], "nothing to annotate"),
        (["e009", "--cause", "x"], "no episode e009"),
        (["e001", "--stage-from", "soon=x"], "no number of seconds"),
        (["e001", "--exclude", "actor", "--include", "actor"], "decide for one"),
        (["e001", "--intervention", "400:650"], r"400: e001 goes from 0 to 1\.80 s"),
        (["e001", "--intervention", "0.2:1.9"], r"1\.9: e001 goes from 0 to 1\.80 s"),
        (["e001", "--intervention=-1:1"], r"-1: e001 goes from 0 to 1\.80 s"),
        (["e001", "--intervention", "nan:1"], "no number of seconds"),
        (["e001", "--stage-from", "0.4"], "expected SECONDS=NAME"),
        (["e001", "--stage-from", "0.4= "], "expected SECONDS=NAME"),
        (["e001", "--stage-from", "999=place"], r"999: e001 goes from 0 to 1\.80 s"),
        (["e001", "--stage-from", "1.8=place"], r"1\.8=place: e001 goes from 0 to 1\.80 s"),
        (["e001", "--revert", "0", "--cause", "x"], "--revert goes back as a whole"),
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


def test_the_alignment_is_a_file(root, capsys, tmp_path):
    pytest.importorskip("pyarrow")
    file = tmp_path / "align.yaml"
    file.write_text("latency_ms: {/hand/joint_states: 400}\ntolerance_ms: 1000\n")
    run("show", "e000", "--root", root, "--align", file)
    assert ", 0 out of tolerance" in capsys.readouterr().out
    run("export", root, "--format", "lerobot", "--output", tmp_path / "a", "--align", file)
    run("export", root, "--format", "lerobot", "--output", tmp_path / "b")
    moved, plain = (read_lerobot(tmp_path / name)[0] for name in "ab")
    assert np.array_equal(moved.hand[:-10], plain.hand[10:])
    file.write_text("latency_ms: {/hand/joints: 40}")
    with pytest.raises(ConfigError, match=r"align\.yaml.*nothing is aligned from /hand/joints"):
        run("show", "e000", "--root", root, "--align", file)


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


def test_repair_looks_at_finished_recordings_too(root, capsys):
    (root / "e000/metadata.yaml").unlink()
    bag = root / "e001/e001_0.mcap"
    torn = bag.read_bytes()[:-3000]
    bag.write_bytes(torn)
    assert run("repair", root) == 1
    captured = capsys.readouterr()
    assert "e000: whole (finished), metadata.yaml renewed" in captured.out
    assert "e001" in captured.err and "restore it from a backup" in captured.err
    assert "e002" not in captured.out + captured.err, "nothing is said of what is whole"
    assert (root / "e000/metadata.yaml").is_file() and bag.read_bytes() == torn
    # What is named is always looked at.
    assert run("repair", root / "e002", root / "e001") == 1
    captured = capsys.readouterr()
    assert "e002: whole (finished)" in captured.out and "damaged since" in captured.err


def test_one_that_cannot_be_repaired_does_not_stop_the_others(root, capsys, monkeypatch):
    for name in ("e000", "e001"):
        text = (root / name / "episode.json").read_text()
        (root / name / "episode.json").write_text(text.replace('"finished"', '"recording"'))
        bag = root / name / f"{name}_0.mcap"
        bag.write_bytes(bag.read_bytes()[:-3000])
    flush, tries = BagWriter.flush, []

    def full_at_first(writer):
        tries.append(writer)
        if writer is tries[0]:
            raise OSError(28, "No space left on device")
        flush(writer)

    monkeypatch.setattr(BagWriter, "flush", full_at_first)
    monkeypatch.setattr(BagWriter, "flush_if_due", full_at_first)
    assert run("repair", root / "nowhere", root) == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err and "no such directory" in err
    assert not list(root.glob("*/*.repair"))
    statuses = [entry.status for entry in Collection(root)]
    assert statuses == ["recording", "repaired", "finished", "finished"]


def test_export_and_import(root, capsys, tmp_path):
    pytest.importorskip("pyarrow")
    run("export", root, "--format", "lerobot", "--output", tmp_path / "l", "--outcome", "success")
    assert "3 episodes" in capsys.readouterr().out
    run("import", tmp_path / "l", "--format", "lerobot", "--output", tmp_path / "again")
    assert [e.id for e in Collection(tmp_path / "again")] == ["e000", "e001", "e003"]
    pytest.importorskip("h5py")
    run("export", root, "--format", "robomimic", "--output", tmp_path / "r.hdf5")
    assert (tmp_path / "r.hdf5").is_file()


IDLE = [
    (["--prefix", "/x"], "--prefix does not go with --print"),
    (["--clock"], "--clock does not go with --print"),
    (["--paused"], "--paused does not go with --print"),
    (["--execute"], "--execute does not go with --print"),
    (["--outcome", "success"], "--outcome does not go with --print"),
    (["--yes"], "--yes does not go with --print"),
]


@pytest.mark.parametrize(("arguments", "message"), IDLE)
def test_an_option_that_would_do_nothing_is_refused(root, arguments, message):
    with pytest.raises(EpisodeError, match=message):
        run("replay", root / "e000", "--print", *arguments)


@pytest.mark.parametrize("arguments", [["--outcome", "success"], ["--yes"]])
def test_options_of_an_execution_do_nothing_without_one(root, arguments):
    play = pytest.importorskip("dexpie_ros.nodes.replay_commands").play
    with pytest.raises(EpisodeError, match=f"{arguments[0]} goes with --execute only"):
        run("replay", root / "e000", *arguments, play=play)


@pytest.mark.parametrize(
    "arguments",
    [["--bgr"], ["--rate", "7"], ["--kind", "evaluation"], ["--task", "t"]],
)
def test_options_of_the_authors_data_do_not_go_with_lerobot(tmp_path, arguments):
    with pytest.raises(EpisodeError, match=f"{arguments[0]} goes with --format authors only"):
        run("import", tmp_path, "--format", "lerobot", *arguments)


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
