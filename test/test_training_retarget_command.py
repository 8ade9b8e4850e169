"""`dexpie train retarget`."""

import re

import pytest
from glove_person import record

from dexpie_ros.cli import main
from dexpie_ros.control.retargeting_learned import LearnedRetargeting
from dexpie_ros.graph import NODES


def test_a_recording_becomes_a_retargeting(tmp_path, capsys):
    file, output = tmp_path / "motion.json", tmp_path / "retargeting"
    record(seed=0).save(file)
    arguments = ["train", "retarget", str(file), "--output", str(output), "--set", "iterations=60"]
    assert main([*arguments, "--set", "learning_rate=0.03"]) == 0
    said = capsys.readouterr().out
    assert "pinch_index_mm" in said and "learned" in said and "teleop.learned_retargeting" in said
    assert LearnedRetargeting.load(output).openings is not None
    assert (output / "report.json").is_file()


def test_the_help_names_what_makes_the_recording(capsys):
    with pytest.raises(SystemExit):
        main(["train", "retarget", "--help"])
    (named,) = re.findall(r"JSON of `([^`]+)`", capsys.readouterr().out)
    assert named.removeprefix("dexpie-") in NODES and named.startswith("dexpie-")


def test_mistakes_are_one_line(tmp_path, capsys):
    command = ["train", "retarget", str(tmp_path / "none.json"), "--output", str(tmp_path / "o")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "none.json: no such recording" in said and "dexpie-glove_motion" in said
    assert "Errno" not in said
    assert main([*command, "--set", "iteration=3"]) == 2
    assert "iteration" in capsys.readouterr().err
