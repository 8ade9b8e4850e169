"""What `dexpie` says whatever the command: Ctrl-C, defaults, settings, errors."""

from __future__ import annotations

import argparse

import pytest

from dexpie_ros import cli
from dexpie_ros.evaluation import commands as evaluation_commands
from dexpie_ros.evaluation import experiment_commands
from dexpie_ros.nodes import jog
from dexpie_ros.training import commands as training_commands


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
