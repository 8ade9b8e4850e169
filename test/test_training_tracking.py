"""Curves of a run: TensorBoard and wandb, each a stub here, and what is said without them."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
from synthetic import reach
from test_training_loop import FAST, config

from dexpie_ros.config import ConfigError
from dexpie_ros.training.train import train_actor


class Recorded:
    """Stands for a SummaryWriter and for a run of wandb."""

    def __init__(self):
        self.rows, self.ended = [], 0

    def add_scalar(self, name, value, step):
        self.rows.append((name, step))

    def log(self, values, step):
        self.rows.append((tuple(values), step))

    def close(self):
        self.ended += 1

    finish = close


@pytest.fixture(scope="module")
def episodes():
    return [reach(i, 40) for i in range(2)]


def run_with(**changes):
    return config(loop=replace(FAST, iterations=8, **changes))


def test_tensorboard_gets_every_report(episodes, tmp_path, monkeypatch):
    board, places, module = Recorded(), [], ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda place: places.append(place) or board
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train_actor(run_with(tensorboard=True), episodes, None, tmp_path)
    assert places == [str(tmp_path / "tensorboard")]
    assert [row for row in board.rows if row[0] == "loss"] == [("loss", 4), ("loss", 8)]
    assert board.ended == 1


def test_wandb_gets_every_report_and_an_interrupted_run_is_ended(episodes, tmp_path, monkeypatch):
    run, asked, module = Recorded(), [], ModuleType("wandb")
    module.init = lambda **options: asked.append(options) or run
    monkeypatch.setitem(sys.modules, "wandb", module)

    def stop(now):
        raise InterruptedError

    folder = tmp_path / "mine"
    with pytest.raises(InterruptedError):
        train_actor(run_with(wandb=True), episodes, None, folder, stop)
    assert run.ended == 1
    train_actor(run_with(wandb=True), episodes, None, folder)
    assert run.rows == [(("loss", "learning_rate", "samples_per_s"), step) for step in (4, 8)]
    assert [options["name"] for options in asked] == ["mine", "mine"]
    assert asked[0]["config"]["iterations"] == 8
    assert run.ended == 2


@pytest.mark.parametrize(
    ("option", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_library_that_is_not_there_is_named_with_its_extra(
    option, module, episodes, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"loop\.{option}: .*dexpie_ros\[track\]"):
        train_actor(run_with(**{option: True}), episodes, None, tmp_path)
