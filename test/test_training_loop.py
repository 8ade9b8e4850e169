"""The loop: schedules by hand, exact resume, kill -9, overfitting, guidance, seams."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies import TINY_MLP, TINY_UNET, tiny_config
from synthetic import reach
from test_training_recipes import labels_for

from dexpie_ros import geometry
from dexpie_ros.config import ConfigError, read_yaml
from dexpie_ros.policy.actor import Actor, Batch
from dexpie_ros.policy.diffusion import draw
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy
from dexpie_ros.policy.settings import (
    DenoiserConfig,
    DiffusionConfig,
    InferenceSettings,
    OptimalityConfig,
    PrefixConfig,
)
from dexpie_ros.training.checkpoint import CheckpointError
from dexpie_ros.training.loop import (
    Loop,
    LoopConfig,
    ema_decay,
    learning_rate,
    total_steps,
)
from dexpie_ros.training.recipes import RECIPES
from dexpie_ros.training.train import ActorConfig, DataConfig, train_actor

FAST = LoopConfig(
    batch_size=32, iterations=12, learning_rate=1e-3, warmup_steps=2, log_every=4, device="cpu"
)  # fmt: skip


def config(recipe="bc", loop=FAST, **changes):
    return ActorConfig(recipe=recipe, policy=tiny_config(**changes), loop=loop)


@pytest.fixture(scope="module")
def episodes():
    return [
        *(reach(i, 40) for i in range(3)),
        reach(3, 40, "deployment"),
        reach(4, 40, "deployment", "failure"),
        reach(5, 50, "correction", human=slice(20, 50)),
    ]


def test_schedules_golden_numbers():
    settings = LoopConfig(learning_rate=1.0, warmup_steps=10)
    assert learning_rate(settings, 0, 110) == pytest.approx(0.1)
    assert learning_rate(settings, 9, 110) == pytest.approx(1.0)
    assert learning_rate(settings, 60, 110) == pytest.approx(0.5)
    assert learning_rate(settings, 110, 110) == pytest.approx(0.0)
    assert ema_decay(settings, 0) == 0.0
    assert ema_decay(settings, 15) == pytest.approx(1 - 16**-0.75)  # 0.875
    assert ema_decay(settings, 48_000) == pytest.approx(0.9997, abs=5e-5)
    assert ema_decay(settings, 10**7) == 0.9999
    assert total_steps(LoopConfig(epochs=3, batch_size=10), 25) == 9
    assert total_steps(LoopConfig(iterations=7), 25) == 7


class Stop(Exception):
    pass


def test_resume_is_bit_exact_after_an_interrupt(episodes, tmp_path):
    whole = train_actor(config(), episodes, None, tmp_path / "whole")

    def stop(now):
        if now.step == 8:
            raise Stop

    with pytest.raises(Stop):
        train_actor(config(), episodes, None, tmp_path / "cut", stop)
    seen = []
    cut = train_actor(config(), episodes, None, tmp_path / "cut", seen.append)
    assert [now.step for now in seen] == [12]
    names = ("model.safetensors", "normalizer.json")
    assert [(cut / n).read_bytes() for n in names] == [(whole / n).read_bytes() for n in names]
    lines = [(tmp_path / d / "metrics.jsonl").read_text().splitlines() for d in ("whole", "cut")]
    losses = [[line.split("samples")[0] for line in each] for each in lines]
    assert losses[0] == losses[1]
    run = read_yaml(tmp_path / "cut" / "run.yaml")
    assert len(run["data_sha256"]) == 64
    assert run["episodes"] == ["episode-0", "episode-1", "episode-2"]


def test_a_folder_keeps_to_one_run(episodes, tmp_path):
    train_actor(config(), episodes, None, tmp_path)
    with pytest.raises(ConfigError, match="another config"):
        train_actor(config(loop=replace(FAST, seed=1)), episodes, None, tmp_path)
    with pytest.raises(ConfigError, match="another data"):
        train_actor(config(), episodes[1:], None, tmp_path)
    renamed = [replace(e, info=replace(e.info, episode_id=f"{e.id}-again")) for e in episodes]
    with pytest.raises(ConfigError, match="another episodes"):
        train_actor(config(), renamed, None, tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be read"):
        train_actor(config(), episodes, None, tmp_path)


def test_kill_at_any_time_leaves_a_good_checkpoint(tmp_path):
    program = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
from test_training_loop import *
train_actor(endless(), [reach(i, 40) for i in range(3)], None, {str(tmp_path)!r})
"""
    path = tmp_path / "checkpoint.safetensors"
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 250
        while not path.exists():
            assert process.poll() is None, "training ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)  # it writes a checkpoint at every step: likely in the middle of one
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    reached = Loop(untrained(), endless().loop, tmp_path).step
    assert reached > 0

    def stop(now):
        raise Stop

    with pytest.raises(Stop):
        train_actor(endless(), [reach(i, 40) for i in range(3)], None, tmp_path, stop)
    assert Loop(untrained(), endless().loop, tmp_path).step > reached


def endless():
    return config(loop=replace(FAST, iterations=100_000, checkpoint_every=1, log_every=4))


def untrained():
    return Actor(tiny_config(optimality=OptimalityConfig(kind="none", size=16)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains(recipe, episodes, tmp_path):
    labels = [labels_for(e) for e in episodes]
    folder = train_actor(config(recipe), episodes, labels, tmp_path)
    policy = Policy.load(folder)
    kinds = {"recap": "binary", "dexpie": "continuous"}
    assert policy.config.optimality.kind == kinds.get(recipe, "none")
    assert f"recipe `{recipe}`" in (folder / "card.md").read_text()


def test_a_run_may_start_from_another_policy(episodes, tmp_path):
    labels = [labels_for(e) for e in episodes]
    first = train_actor(config(), episodes, None, tmp_path / "bc")
    second = replace(config("dexpie"), init_from=str(first))
    folder = train_actor(second, episodes, labels, tmp_path / "dexpie")
    a, b = Policy.load(first), Policy.load(folder)
    assert a.normalizer.to_dict() == b.normalizer.to_dict()
    assert "started from" in (folder / "card.md").read_text()
    # where that policy lies does not matter, which one it is does
    first.parent.rename(tmp_path / "moved")
    moved = replace(second, init_from=str(tmp_path / "moved" / "policy"))
    train_actor(moved, episodes, labels, tmp_path / "dexpie")
    reseeded = replace(config(), loop=replace(config().loop, seed=7))
    first = train_actor(reseeded, episodes, None, tmp_path / "bc")
    with pytest.raises(ConfigError, match="another policy to start from"):
        train_actor(second, episodes, labels, tmp_path / "dexpie")
    other = replace(config("dexpie", denoiser=TINY_UNET), init_from=str(first))
    with pytest.raises(ConfigError, match="another network"):
        train_actor(other, episodes, labels, tmp_path / "no")


class OneBatch:
    """The same windows at every step."""

    def __init__(self, batch):
        self.rows = batch

    def __len__(self):
        return len(self.rows.valid)

    def batch(self, index, generator):
        return self.rows

    def prefetch(self, index):
        pass


def train_toy(actions, vector, good, iterations, **changes):
    """A policy over plain arrays: no robot, no normaliser."""
    torch.manual_seed(0)
    values = {
        "observation": ObservationSpec(parts=("hand",)),
        "denoiser": replace(TINY_MLP, width=96),
        "optimality": OptimalityConfig(size=16),
    }
    actor = Actor(tiny_config(**(values | changes)))
    ones = torch.ones(len(actions))
    batch = Batch(vector, actions, 24 * ones.long(), good, ones)

    class Rows(OneBatch):
        def batch(self, index, generator):
            r = self.rows
            return Batch(
                r.vector[index], r.actions[index], r.valid[index], r.optimality[index],
                r.weight[index],
            )  # fmt: skip

    loop = LoopConfig(
        batch_size=128, iterations=iterations, learning_rate=3e-3, warmup_steps=20, device="cpu"
    )
    return Loop(actor, loop).run(Rows(batch)).actor


@pytest.fixture(scope="module")
def toy():
    """One state, actions spread in -0.8 .. 0.8, the larger the likelier good (I = 1)."""
    generator = torch.Generator().manual_seed(0)
    level = 1.6 * torch.rand(2000, generator=generator) - 0.8
    actions = level[:, None, None].expand(-1, 24, 15).contiguous()
    good = torch.rand(2000, generator=generator) < torch.sigmoid(3 * level)
    return train_toy(actions, torch.zeros(2000, 6), good.float(), 500)


def draw_toy(actor, settings, count=400):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, 24, 15, generator=generator)
    empty, mask = torch.zeros_like(noise), torch.zeros(count, 24)
    out = actor.sample(torch.zeros(count, 6), noise, empty, mask, settings)
    return out.mean(dim=(1, 2)).numpy()


def test_raising_beta_moves_samples_toward_the_good_actions(toy):
    means = [
        draw_toy(toy, InferenceSettings(beta=beta, steps=10)).mean()
        for beta in (0.0, 1.0, 1.5, 2.0, 3.0)
    ]
    assert (np.diff(means) > 0.01).all(), means


def test_asking_for_optimal_beats_asking_for_bad(toy):
    low, high = (
        draw_toy(toy, InferenceSettings(beta=1.0, optimality=i)).mean() for i in (0.0, 1.0)
    )
    assert high > low + 0.15


def test_the_prefix_is_exact_and_what_follows_goes_on_from_it():
    """Ramps whose start and slope the observation does not tell: only the prefix does."""
    torch.manual_seed(0)
    start, slope = torch.rand(2, 1500, 1, 1) - 0.5
    actions = (start + slope * torch.arange(24)[None, :, None] / 24).expand(-1, -1, 15)
    actions = actions.contiguous()
    none = OptimalityConfig(kind="none", size=16)
    actor = train_toy(actions, torch.zeros(1500, 6), torch.ones(1500), 700, optimality=none)
    truth = actions[:200]
    mask = torch.zeros(200, 24)
    mask[:, :4] = 1.0
    noise = torch.randn(200, 24, 15, generator=torch.Generator().manual_seed(1))
    features, settings = torch.zeros(200, 6), InferenceSettings(steps=10)
    out = actor.sample(features, noise, truth, mask, settings)
    assert torch.equal(out[:, :4], truth[:, :4])
    steps = (out[:, 1:] - out[:, :-1]).norm(dim=-1)
    seam, inside = steps[:, 3], steps[:, 4:].flatten()
    assert torch.quantile(seam, 0.95) < torch.quantile(inside, 0.95)
    # It is the right continuation, not merely a smooth one; without the prefix it is a guess.
    free = actor.sample(features, noise, truth, 0 * mask, settings)
    error, guess = ((x[:, 4:] - truth[:, 4:]).abs().mean() for x in (out, free))
    assert error < 0.03 < 5 * error < guess


@pytest.mark.parametrize("kind", ["mlp", "unet"])
@pytest.mark.parametrize("departs", [False, True], ids=["plain", "departs"])
def test_small_steps_go_on_from_the_prefix_where_chunks_depart_from_it(kind, departs):
    """Steps far smaller than the range of the chunks, as of a robot: a plain network of this size
    errs by more than one of them right behind the prefix, one that departs from it does not."""
    torch.manual_seed(0)
    start, way = 1.6 * torch.rand(1500, 1, 15) - 0.8, 0.4 * torch.rand(1500, 1, 15) - 0.2
    actions = start + way * torch.arange(24)[None, :, None] / 24
    chosen = DenoiserConfig(depart_from_prefix=departs, depart_ramp=8 if departs else 1)
    net = {"mlp": {"width": 96, "blocks": 2}, "unet": {"channels": (16, 32), "groups": 4}}[kind]
    small = replace(chosen, kind=kind, step_embedding=16, vector_embedding=16, **net)
    none = OptimalityConfig(kind="none", size=16)
    iterations = 300 if kind == "mlp" else 100
    actor = train_toy(
        actions, torch.zeros(1500, 6), torch.ones(1500), iterations, optimality=none, denoiser=small
    )
    mask = torch.zeros(200, 24)
    mask[:, :4] = 1.0
    noise = torch.randn(200, 24, 15, generator=torch.Generator().manual_seed(1))
    settings = InferenceSettings(steps=10)
    out = actor.sample(torch.zeros(200, 6), noise, actions[:200], mask, settings)
    steps = (out[:, 1:] - out[:, :-1]).norm(dim=-1)
    seam, inside = (torch.quantile(s, 0.95) for s in (steps[:, 3], steps[:, 4:].flatten()))
    assert seam < 0.6 * inside if departs else seam > 1.5 * inside, (seam, inside)


def test_bf16_and_observation_noise_train(episodes, tmp_path):
    run = replace(
        config(loop=replace(FAST, precision="bf16", iterations=30)),
        data=DataConfig(observation_noise=0.02),
    )
    folder = train_actor(run, episodes, None, tmp_path)
    tcp, _ = Policy.load(folder).sample(np.zeros(15), np.eye(4))
    assert np.isfinite(tcp).all()
    assert geometry.rotation_angle(np.eye(3), tcp[0, :3, :3]) < np.pi


def test_draws_differ_from_step_to_step_but_not_from_run_to_run():
    shape, generator = (4, 24, 15), torch.Generator()

    def noise(seed):
        generator.manual_seed(seed)
        return draw(
            shape, DiffusionConfig(), PrefixConfig(), OptimalityConfig(), generator
        ).noise  # fmt: skip

    assert torch.equal(noise(1), noise(1))
    assert not torch.equal(noise(1), noise(2))
