"""Chunks that are bent onto their prefix: by hand, exact at the prefix, blind to it otherwise."""

import math
from dataclasses import replace

import pytest
import torch

from dexpie_ros.policy.actor import Actor, Batch
from dexpie_ros.policy.bending import bent
from dexpie_ros.policy.diffusion import draw, prefix_mask
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.presets import preset
from dexpie_ros.policy.settings import (
    DenoiserConfig,
    DiffusionConfig,
    InferenceSettings,
    OptimalityConfig,
    PolicyConfig,
    PrefixConfig,
)

MLP = DenoiserConfig(
    kind="mlp",
    width=32,
    blocks=2,
    step_embedding=16,
    vector_embedding=16,
    prefix_conditioning=False,
)
UNET = DenoiserConfig(channels=(16, 32), groups=4, step_embedding=16, prefix_conditioning=False)


def config(network=MLP):
    return PolicyConfig(
        observation=ObservationSpec(parts=("hand",)),
        denoiser=network,
        diffusion=DiffusionConfig(prediction="sample"),
        prefix=PrefixConfig(kind="bent", bend=12),
    )


def test_bending_golden_numbers():
    chunk = torch.tensor([0.0, 1, 2, 3, 4, 5, 6])[None, :, None].repeat(3, 1, 2)
    prefix = torch.full_like(chunk, 9.0)
    prefix[:, 1] = 5.0  # b of the first, whose own action in that slot is 1
    prefix[2, 0] = -4.0  # b of the third, whose own is 0
    mask = prefix_mask(torch.tensor([2, 0, 1]), 7).float()
    out = bent(chunk, prefix, mask, 4)
    # 4 (1 + cos(j pi/4)) / 2 is added to 2, 3, 4, 5, 6 from j = 1 on.
    much, little = 2 + 2**0.5, 2 - 2**0.5
    assert out[0, :, 0].tolist() == pytest.approx([9, 5, 2 + much, 3 + 2, 4 + little, 5, 6])
    assert torch.equal(out[1], chunk[1])
    assert out[2, :, 1].tolist() == pytest.approx(
        [-4, 1 - much, 2 - 2, 3 - little, 4, 5, 6], abs=1e-6
    )


@pytest.mark.parametrize("network", [UNET, MLP], ids=["unet", "mlp"])
@pytest.mark.parametrize("fast", [False, True])
def test_a_prefix_comes_back_exactly_and_moves_nothing_behind_the_bend(network, fast):
    torch.manual_seed(0)
    actor = Actor(config(network)).eval()
    if fast:
        actor.prepare()
    noise, prefix = torch.randn(3, 24, 15), torch.rand(3, 24, 15) - 0.5
    mask = prefix_mask(torch.tensor([0, 2, 4]), 24).float()

    def sample(known):
        return actor.sample(torch.zeros(3, 6), noise, prefix, known, InferenceSettings())

    out, free = sample(mask), sample(torch.zeros_like(mask))
    assert torch.equal(out[mask > 0], prefix[mask > 0])
    assert torch.equal(out[0], free[0])
    share = (1 - math.cos(math.pi / 12)) / 2
    assert share < 0.02
    for row, length in ((1, 2), (2, 4)):
        assert torch.equal(out[row, length + 11 :], free[row, length + 11 :])
        # The step out of the prefix is the network's own but for 2 % of the difference.
        first = out[row, length] - out[row, length - 1]
        own = free[row, length] - free[row, length - 1]
        difference = prefix[row, length - 1] - free[row, length - 1]
        assert torch.allclose(first, own - share * difference, atol=1e-6)


def test_the_loss_does_not_know_of_prefixes():
    settings = config()
    generator = torch.Generator().manual_seed(0)
    draws = draw(
        (64, 24, 15), settings.diffusion, settings.prefix, OptimalityConfig(), generator
    )  # fmt: skip
    assert not draws.delay.any()
    conditioned = replace(settings.prefix, kind="conditioned")
    generator = torch.Generator().manual_seed(0)
    others = draw((64, 24, 15), settings.diffusion, conditioned, OptimalityConfig(), generator)
    assert others.delay.any() and torch.equal(others.noise, draws.noise)

    torch.manual_seed(0)
    actor, ones = Actor(settings), torch.ones(64)
    batch = Batch(torch.zeros(64, 6), torch.zeros(64, 24, 15), 24 * ones.long(), ones, ones)
    counts = actor(batch, draws)
    assert counts.item() > 0
    gradient = torch.autograd.grad(counts, actor.denoiser.output.bias)[0].view(24, 15)
    assert gradient.abs().amin(dim=1).min() > 0  # the first slots are learned like the others


def test_what_would_contradict_it_is_refused():
    for wrong in (
        {"prefix_conditioning": True},
        {"prefix_conditioning": True, "depart_from_prefix": True},
    ):
        with pytest.raises(ValueError, match="bent keeps the prefix from the network"):
            config(replace(MLP, **wrong))


def test_the_cpu_preset_bends():
    chosen = preset("cpu")
    assert chosen.prefix.kind == "bent" and not chosen.denoiser.prefix_conditioning
    for name in ("paper", "authors", "best"):
        assert preset(name).prefix.kind == "conditioned"
