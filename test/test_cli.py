"""What `dexpie` says whatever the command: Ctrl-C, defaults, settings, errors."""

from __future__ import annotations

import argparse

import pytest

from dexpie_ros import cli
from dexpie_ros.episodes import commands as episodes_commands
from dexpie_ros.evaluation import commands as evaluation_commands
from dexpie_ros.evaluation import experiment_commands
from dexpie_ros.nodes import jog
from dexpie_ros.training import commands as training_commands


def helped(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``words`` with --help print, in one line."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*words.split(), "--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_launch_says_what_there_is_to_launch(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped("launch", capsys)
    assert "{collect,deploy}" in text and "collect: robot or simulation" in text
    assert "--show-args lists all" in text
    assert cli.main(["launch", "colect"]) == 2
    assert "unknown stack: colect; did you mean collect?" in capsys.readouterr().err
    assert cli.main(["launch", "collect", "--show-args"]) == 0
    text = capsys.readouterr().out
    assert "device:=auto\t" in text and "sim:=true\t" in text and "(jpeg|raw|none)" in text


def test_a_task_has_two_names_and_a_start_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(cli, "_run_evaluate", lambda options: seen.append(options) or 0)
    assert cli.main("evaluate x --task bottle --first-start 7".split()) == 0
    assert cli.main("evaluate x --task A --first-seed 7".split()) == 0
    assert [(o.task, o.first_seed) for o in seen] == [("A", 7)] * 2
    with pytest.raises(SystemExit):
        cli.main("evaluate x --task bowl".split())
    assert "bowl: simulated are bottle (A), drawer (B), box (C)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "function", "words", "old", "kept_as"),
    [
        (evaluation_commands, "_label", "label c e", "--tag", "tag"),
        (evaluation_commands, "_report", "critic report c e", "--tag", "tag"),
        (evaluation_commands, "_video", "critic video e", "--tag", "tag"),
        (
            training_commands,
            "_train_actor",
            "train actor --recipe bc --output x",
            "--tag",
            "labels",
        ),
        (episodes_commands, "_show", "episodes show e", "--label", "labels"),
    ],
)
def test_labels_are_called_labels_and_as_before(
    module: object, function: str, words: str, old: str, kept_as: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(module, function, lambda options: seen.append(options) or 0)
    for name in ("--labels", old):
        assert cli.main([*words.split(), name, "mine"]) == 0
    assert [getattr(options, kept_as) for options in seen] == ["mine", "mine"]


def interrupt(_options: argparse.Namespace) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "function", "words", "said"),
    [
        (cli, "_run_demo", "demo", "; the same command goes on from here"),
        (cli, "_run_demo", "demo --fresh", "; the same command without --fresh goes on from here"),
        (experiment_commands, "_experiment", "experiment ladder", "; the same command goes on from here"),
        (experiment_commands, "_vision", "experiment vision", "; the same command goes on from here"),
        (experiment_commands, "_collision", "experiment collision",
         "; episodes are kept; the same command trains the three critics anew"),
        (training_commands, "_train_actor", "train actor --recipe bc --output x",
         "; the same command goes on from here"),
        (jog, "run", "jog x 0.02",
         "; the robot went a part of the way; the same command asks for the whole amount again"),
        (evaluation_commands, "_train", "train critic x --max-steps 9 --output x", ""),
        (cli, "_run_evaluate", "evaluate x", ""),
    ],
)  # fmt: skip
def test_only_what_goes_on_says_that_it_does(
    module: object, function: str, words: str, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(module, function, interrupt)
    assert cli.main(words.split()) == cli.EXIT_INTERRUPTED
    assert capsys.readouterr().err == f"interrupted{said}\n"
