"""What a run leaves behind when it is interrupted, broken off in a step, or diverges."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from synthetic import reach
from test_training_loop import FAST, config, untrained

from dexpie_ros.training.loop import Loop, TrainingError
from dexpie_ros.training.train import train_actor

RUN = config(loop=replace(FAST, checkpoint_every=4))
FILES = ("model.safetensors", "normalizer.json")


@pytest.fixture(scope="module")
def episodes():
    return [reach(i, 40) for i in range(3)]


@pytest.fixture(scope="module")
def whole(episodes, tmp_path_factory):
    return train_actor(RUN, episodes, None, tmp_path_factory.mktemp("whole"))


@pytest.fixture(autouse=True)
def listens_to_ctrl_c():
    """Also where the tests themselves run in the background, which Ctrl-C is kept from."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def on_call(monkeypatch, name, number, then):
    """``then(arguments)`` after the call ``number`` of ``torch.name``."""
    inner, calls = getattr(torch, name), []

    def outer(*arguments, **options):
        out = inner(*arguments, **options)
        calls.append(None)
        if len(calls) == number:
            then(*arguments)
        return out

    monkeypatch.setattr(torch, name, outer)


def saved_step(folder):
    return Loop(untrained(), RUN.loop, folder).step


def contents(policy):
    return [(policy / name).read_bytes() for name in FILES]


# the optimiser has changed the weights, or also the average's half of the step was to come
@pytest.mark.parametrize("where", ["_fused_adamw_", "_foreach_lerp_"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_step_broken_off_half_way_is_not_saved(
    where, error, episodes, whole, tmp_path, monkeypatch, caplog
):
    def stop(*_):
        raise error("in the middle of a step")

    with monkeypatch.context() as patch:
        on_call(patch, where, 10, stop)
        with pytest.raises(error, match="in the middle"):
            train_actor(RUN, episodes, None, tmp_path)
    assert "step 10 was broken off half-way" in caplog.text
    assert saved_step(tmp_path) == 8
    assert contents(train_actor(RUN, episodes, None, tmp_path)) == contents(whole)


def test_ctrl_c_ends_the_step_and_saves_it(episodes, whole, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        on_call(patch, "_fused_adamw_", 6, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train_actor(RUN, episodes, None, tmp_path)
    assert saved_step(tmp_path) == 6
    assert signal.getsignal(signal.SIGINT) is before
    assert contents(train_actor(RUN, episodes, None, tmp_path)) == contents(whole)


def test_a_second_ctrl_c_is_immediate(episodes, tmp_path, monkeypatch):
    def twice(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    on_call(monkeypatch, "_fused_adamw_", 6, twice)
    with pytest.raises(KeyboardInterrupt):
        train_actor(RUN, episodes, None, tmp_path)
    assert saved_step(tmp_path) == 4


def test_a_loss_that_is_not_finite_ends_the_run_and_overwrites_nothing(
    episodes, tmp_path, monkeypatch
):
    def ruin(parameters, *_):
        parameters[0].fill_(float("nan"))

    on_call(monkeypatch, "_fused_adamw_", 9, ruin)  # so the loss of step 10 is NaN
    with pytest.raises(TrainingError, match=r"step 10: .*not finite; .*last good step.*lower"):
        train_actor(RUN, episodes, None, tmp_path)
    assert saved_step(tmp_path) == 8
    assert not (tmp_path / "policy").exists()


def test_weights_that_a_bad_gradient_ruined_are_not_saved_though_the_loss_was_good(
    episodes, tmp_path, monkeypatch
):
    inner, calls = torch.nn.utils.clip_grad_norm_, []

    def norm(parameters, *arguments, **options):
        calls.append(None)
        if len(calls) == 8:
            parameters[0].grad.fill_(float("inf"))
        return inner(parameters, *arguments, **options)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", norm)
    with pytest.raises(TrainingError, match="step 8"):
        train_actor(RUN, episodes, None, tmp_path)
    assert saved_step(tmp_path) == 4
