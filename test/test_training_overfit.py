"""Every preset, condition and recipe learns one batch by heart: nothing on the way is cut off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from policies import TINY_MLP, TINY_UNET, tiny_config
from synthetic import reach
from test_training_loop import OneBatch
from test_training_recipes import labels_for

from dexpie_ros.policy.actor import Actor, Batch
from dexpie_ros.policy.encoders import build_encoder
from dexpie_ros.policy.normalizer import Normalizer
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.presets import PRESET_NAMES, preset
from dexpie_ros.policy.settings import OptimalityConfig
from dexpie_ros.training.batches import WindowTensors
from dexpie_ros.training.loop import Loop, LoopConfig
from dexpie_ros.training.recipes import CONDITIONS, RECIPES, build

LOOP = LoopConfig(
    batch_size=16, iterations=100, learning_rate=6e-3, warmup_steps=10, device="cpu"
)  # fmt: skip
SIZE = 32


def one_batch(views, rows=4, copies=4):
    """A few windows, each several times, so that one step draws several noises for each."""
    torch.manual_seed(5)
    slot = torch.linspace(0, 1, 24)[None, :, None]
    actions = 0.8 * torch.sin(3 * slot + 3 * torch.rand(rows, 1, 15))
    vector, ones = torch.randn(rows, 15), torch.ones(rows * copies)
    images = None
    if views:
        images = torch.zeros(rows, views, 3, SIZE, SIZE, dtype=torch.uint8)
        for row in range(rows):
            images[row, :, :, 4 + 6 * row : 10 + 6 * row, 24 - 6 * row : 30 - 6 * row] = 255
        images = images.repeat(copies, 1, 1, 1, 1)
    return Batch(
        vector.repeat(copies, 1), actions.repeat(copies, 1, 1), 24 * ones.long(), ones, ones, images
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "continuous") for name in PRESET_NAMES),
        *(("cpu", kind) for kind in ("none", "binary")),
    ],
)
def test_every_preset_and_condition_overfits_one_batch(name, kind):
    """U-Nets of two levels, so with skips, halving and doubling, and what encoders see."""
    chosen = preset(name)
    cameras = chosen.observation.images
    small = TINY_UNET if chosen.denoiser.kind == "unet" else TINY_MLP
    small = replace(
        small,
        prefix_conditioning=chosen.denoiser.prefix_conditioning,
        depart_from_prefix=chosen.denoiser.depart_from_prefix,
        depart_ramp=chosen.denoiser.depart_ramp,
        vector_embedding=chosen.denoiser.vector_embedding,
        channels=(48, 96),
        width=96,
    )
    settings = replace(
        chosen,
        observation=ObservationSpec(parts=("tcp", "hand"), images=cameras),
        encoder=replace(chosen.encoder, arch="small_cnn", weights="random", image_size=SIZE),
        denoiser=small,
        optimality=replace(chosen.optimality, kind=kind),
        action=replace(chosen.action, horizon=24),
    )
    torch.manual_seed(0)
    actor = Actor(settings, build_encoder(settings))
    noise = settings.diffusion.prediction == "epsilon"
    departs = noise and settings.denoiser.depart_from_prefix
    loop = replace(LOOP, iterations=200) if departs else LOOP
    losses = Loop(actor, loop).run(OneBatch(one_batch(len(cameras)))).losses
    # Of the noise, 1 is what saying nothing leaves (a departure says more, untrained); of the
    # chunk, the mean would stay near the spread of the chunks.
    assert losses[-20:].mean() < 0.3 * (1.0 if noise else losses[:5].mean())


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_overfits_one_batch_of_its_windows(recipe):
    episodes = [
        *(reach(i, 40) for i in range(3)),
        reach(3, 40, "deployment"),
        reach(4, 40, "deployment", "failure"),
        reach(5, 50, "correction", human=slice(20, 50)),
    ]
    labels = [labels_for(e) for e in episodes]
    condition = OptimalityConfig(kind=CONDITIONS[recipe], size=16)
    settings = tiny_config(optimality=condition, denoiser=replace(TINY_MLP, width=96))
    data = build(recipe, episodes, labels, settings.observation, 24)
    normalizer = Normalizer.fit(data.windows.vector, data.windows.largest_position)
    tensors = WindowTensors(data, normalizer, 0.0, torch.device("cpu"))
    rows = np.repeat(np.linspace(0, len(data.windows) - 1, 4).astype(np.int64), 4)
    torch.manual_seed(0)
    batch = OneBatch(tensors.batch(rows, torch.Generator()))
    losses = Loop(Actor(settings), LOOP).run(batch).losses
    assert losses[-20:].mean() < 0.3 * losses[:5].mean()
