"""What `dexpie` says whatever the command: Ctrl-C, defaults, settings, errors."""

from __future__ import annotations

import argparse

import pytest

from dexpie_ros import cli, config
from dexpie_ros.demo.settings import DemoConfig
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train actor", "--preset {cpu,best,paper,authors} network and training"),
        ("train actor", "want a GPU; default: cpu"),
        ("train actor", "where episodes lie; default: outputs/episodes"),
        ("train critic", "as its code does; default: best"),
        ("evaluate", "held-out starts; default: 150"),
        ("evaluate", "processes; default: 2"),
        ("experiment ladder", "held-out starts per policy; default: 200"),
        ("episodes list", "root where episodes lie; default: outputs/episodes"),
        ("episodes import", "--output OUTPUT default: outputs/episodes"),
        ("bench", "--output OUTPUT default: outputs/bench"),
    ],
)
def test_help_shows_defaults(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in helped(words, capsys)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("demo --quick", "evaluations=8"),
        ("train actor --preset best --recipe dexhil", "loop.precision=bf16"),
        ("train critic --preset authors", "returns.scaling=decay"),
        ("train retarget", "iterations="),
        ("label --preset authors", "advantage.window=27"),
        ("evaluate", "beta=1.5"),
        ("experiment ladder", "regimes=[retry, terminal]"),
        ("experiment collision", "returns.max_steps="),
        ("experiment vision", "channels="),
    ],
)
def test_set_help_lists_the_keys_of_a_command(
    words: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without what the command needs otherwise: --output, --recipe, episodes."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*words.split(), "--set", "help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(key) for line in lines), lines
    assert all("=" in line for line in lines) and len(set(lines)) == len(lines)


def test_what_is_listed_can_be_set() -> None:
    before = DemoConfig(seed=3)
    assert config.overridden(DemoConfig(), config.listed(before), "here") == before


def test_the_example_of_a_setting_is_one_of_the_commands_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["demo", "--set", "seed"]) == 2
    said = capsys.readouterr().err
    assert "override 'seed': expected key=value, for instance seed=0" in said
    assert cli.main("experiment vision --set trials".split()) == 2
    assert "limits.speed" not in capsys.readouterr().err


def test_no_recipe_is_chosen_for_anybody(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main("train actor --output x".split())
    assert "--recipe" in capsys.readouterr().err


def test_options_that_would_do_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("demo --set task=drawer".split()) == 2
    assert "demo settings: task = 'drawer'" in capsys.readouterr().err
    assert cli.main("doctor --parameters cell.yaml".split()) == 2
    assert "--parameters cell.yaml: belongs to --hardware" in capsys.readouterr().err


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
