"""Schedules, losses, masks, guidance and both networks, against hand-computed numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from dexpie_ros.policy.actor import Actor, Batch
from dexpie_ros.policy.conditioning import OptimalityEmbedding, prefix_inputs, sinusoid
from dexpie_ros.policy.diffusion import Diffusion, Draws, draw, masked_loss, prefix_mask
from dexpie_ros.policy.fast import product
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.presets import PRESET_NAMES, preset
from dexpie_ros.policy.settings import (
    ActionConfig,
    DenoiserConfig,
    DiffusionConfig,
    InferenceSettings,
    OptimalityConfig,
    PolicyConfig,
    PrefixConfig,
)

PREDICTIONS = ("epsilon", "sample", "v_prediction")
TINY_UNET = DenoiserConfig(kind="unet", channels=(16, 32), groups=4, step_embedding=16)
TINY_MLP = DenoiserConfig(kind="mlp", width=32, blocks=2, step_embedding=16, vector_embedding=16)


def tiny(denoiser, **changes):
    return PolicyConfig(observation=ObservationSpec(parts=("hand",)), denoiser=denoiser, **changes)


def wake(actor, seed=0):
    """Replace the zeros of a fresh network, so that every input can reach the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return actor


def test_squared_cosine_schedule_golden_numbers():
    table = Diffusion(DiffusionConfig()).alphas_cumprod.double()

    def bar(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0, 1, 49, 90):
        assert table[t].item() == pytest.approx(bar((t + 1) / 100) / bar(0.0), rel=2e-5)
    # The position signal must stand against this at the last step.
    assert math.sqrt(1 - Diffusion(DiffusionConfig(train_steps=50)).alphas_cumprod[0]) == (
        pytest.approx(0.0418, abs=1e-4)
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [10, 7])
def test_sampling_equals_the_diffusers_scheduler(prediction, steps):
    settings = DiffusionConfig(prediction=prediction, clip_range=1.0)
    ours = Diffusion(settings)
    theirs = DDIMScheduler(
        100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        clip_sample=True,
        set_alpha_to_one=True,
    )
    theirs.set_timesteps(steps)
    assert ours.plan(steps)[0].tolist() == theirs.timesteps.tolist()
    torch.manual_seed(0)
    weight = torch.randn(15, 15) / 4
    noise, prefix, mask = torch.randn(2, 24, 15), torch.rand(2, 24, 15), torch.zeros(2, 24)
    mask[:, :3] = 1.0

    x = noise
    for t in theirs.timesteps:
        x = torch.where(mask.bool()[..., None], prefix, x)
        x = theirs.step(torch.tanh(x @ weight), t, x).prev_sample
    x = torch.where(mask.bool()[..., None], prefix, x)
    out = ours.sample(lambda y, _: torch.tanh(y @ weight), noise, prefix, mask, steps)
    assert (out - x).abs().max() < 1e-5
    assert torch.equal(out[:, :3], prefix[:, :3])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noising_and_targets_equal_the_diffusers_scheduler(prediction):
    theirs = DDPMScheduler(100, beta_schedule="squaredcos_cap_v2", prediction_type=prediction)
    ours = Diffusion(DiffusionConfig(prediction=prediction))
    torch.manual_seed(0)
    clean, noise, step = (
        torch.randn(4, 24, 15),
        torch.randn(4, 24, 15),
        torch.tensor([0, 3, 50, 99]),
    )
    assert torch.allclose(ours.add_noise(clean, noise, step), theirs.add_noise(clean, noise, step))
    target = ours.target(clean, noise, step)
    if prediction == "v_prediction":
        assert torch.allclose(target, theirs.get_velocity(clean, noise, step))
    else:
        assert target is (noise if prediction == "epsilon" else clean)


def test_loss_counts_exactly_the_slots_after_the_prefix_and_before_the_padding():
    # Two windows of 4 slots, 1 value: errors 1, 2, 3, 4. First: d = 1, all valid. Second: d = 0,
    # two valid. Counted squares: 4 + 9 + 16 and 1 + 4: 34 over 5 elements.
    error = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4]])[..., None]
    counts = prefix_mask(torch.tensor([4, 2]), 4) & ~prefix_mask(torch.tensor([1, 0]), 4)
    assert counts.tolist() == [[False, True, True, True], [True, True, False, False]]
    assert masked_loss(error, counts).item() == pytest.approx(34 / 5)
    assert masked_loss(error, counts, renormalize=False).item() == pytest.approx(34 / 8)
    weighted = masked_loss(error, counts, torch.tensor([2.0, 1.0]))
    assert weighted.item() == pytest.approx((2 * 29 + 5) / (2 * 3 + 2))
    assert masked_loss(error, torch.zeros(2, 4, dtype=torch.bool)).item() == 0.0


def test_prefix_lengths_are_uniform_and_kept_as_often_as_asked():
    generator = torch.Generator().manual_seed(0)
    draws = draw(
        (20000, 1, 1), DiffusionConfig(), PrefixConfig(), OptimalityConfig(), generator
    )  # fmt: skip
    shares = torch.bincount(draws.delay, minlength=5) / 20000
    assert torch.allclose(shares, torch.tensor([0.28, 0.18, 0.18, 0.18, 0.18]), atol=0.015)
    assert draws.withheld.float().mean().item() == pytest.approx(0.3, abs=0.015)
    assert draws.step.min() == 0
    assert draws.step.max() == 99


def test_optimality_embeddings():
    # Raw I moves almost nothing; scaled it does.
    values = torch.tensor([0.6, 0.8])
    raw, scaled = sinusoid(values, 128), sinusoid(100 * values, 128)
    assert (raw[0] - raw[1]).norm().item() == pytest.approx(0.40, abs=0.01)
    assert (scaled[0] - scaled[1]).norm() > 4.0
    given, withheld = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    for kind in ("none", "binary", "continuous"):
        torch.manual_seed(0)
        embedding = OptimalityEmbedding(OptimalityConfig(kind=kind))
        null = embedding(values, withheld)
        assert torch.equal(null, embedding.null.expand(2, -1))
        seen = embedding(torch.tensor([0.0, 1.0]), given)
        assert torch.equal(seen[0], seen[1]) == (kind == "none")
    raw = OptimalityEmbedding(OptimalityConfig(embedding="raw", size=128))
    assert torch.equal(raw(values, given), sinusoid(values, 128))
    assert not raw.null.requires_grad


@pytest.mark.parametrize("denoiser", [TINY_UNET, TINY_MLP], ids=["unet", "mlp"])
def test_the_same_seed_gives_every_method_the_same_network(denoiser):
    """But for what only some have: the embedding of I."""
    states = []
    for kind in ("none", "binary", "continuous"):
        torch.manual_seed(3)
        states.append(Actor(tiny(denoiser, optimality=OptimalityConfig(kind=kind))).state_dict())
    shared = [k for k in states[0] if not k.startswith("conditioner.optimality.")]
    assert len(shared) > 5
    for other in states[1:]:
        assert all(torch.equal(states[0][k], other[k]) for k in shared)
        assert len(other) > len(states[0])


@pytest.mark.parametrize("denoiser", [TINY_UNET, TINY_MLP], ids=["unet", "mlp"])
def test_prefix_conditioning_starts_as_plain_overwriting_and_then_reaches_the_output(denoiser):
    torch.manual_seed(0)
    actor = Actor(tiny(denoiser))
    x, prefix, mask = torch.randn(2, 24, 15), torch.randn(2, 24, 15), torch.zeros(2, 24)
    mask[:, :4] = 1.0
    condition = torch.randn(2, actor.conditioner.size)
    plain = actor.denoiser(x, prefix, torch.zeros(2, 24), condition)
    assert torch.equal(actor.denoiser(x, prefix, mask, condition), plain)
    wake(actor)
    moved = actor.denoiser(x, prefix, mask, condition)
    plain = actor.denoiser(x, prefix, torch.zeros(2, 24), condition)
    assert not torch.allclose(moved, plain)
    # What lies outside the mask is never seen.
    other = torch.where(mask.bool()[..., None], prefix, torch.randn(2, 24, 15))
    assert torch.equal(actor.denoiser(x, other, mask, condition), moved)


def test_unet_uses_the_full_resolution_skip_and_local_conditioning_at_both_ends():
    torch.manual_seed(0)
    net = wake(Actor(tiny(TINY_UNET))).denoiser
    x, mask = torch.randn(1, 24, 15), torch.ones(1, 24)
    condition = torch.randn(1, 16 + 6 + 32)
    rows = net.modulations(condition)
    # Cut everything below full resolution: what still depends on x went through the skip.
    saved = net.grow[0].weight.data.clone()
    net.grow[0].weight.data.zero_()
    with_skip = net.denoise(x, [], rows)
    assert not torch.allclose(with_skip, net.denoise(x + 1, [], rows))
    net.grow[0].weight.data.copy_(saved)
    first, last = net.local(x, mask)
    both = net.denoise(x, [first, last], rows)
    assert not torch.allclose(both, net.denoise(x, [first, 0 * last], rows))
    assert not torch.allclose(both, net.denoise(x, [0 * first, last], rows))
    # The exit term alone reaches each slot even when all else is cut off.
    for layer in (net.up[-1][1].second.norm, net.up[-1][1].skip):
        for parameter in layer.parameters():
            parameter.data.zero_()
    assert not torch.allclose(
        net.denoise(x, [first, last], rows), net.denoise(x, [first, 2 * last], rows)
    )


def sample(actor, beta, features=None, steps=5):
    torch.manual_seed(1)
    noise, prefix, mask = torch.randn(1, 24, 15), torch.rand(1, 24, 15), torch.zeros(1, 24)
    mask[:, :2] = 1.0
    features = torch.zeros(1, 6) if features is None else features
    return actor.sample(features, noise, prefix, mask, InferenceSettings(beta=beta, steps=steps))


@pytest.mark.parametrize("denoiser", [TINY_UNET, TINY_MLP], ids=["unet", "mlp"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_guidance_in_one_batch_equals_two_passes(denoiser, prediction):
    torch.manual_seed(0)
    config = tiny(denoiser, diffusion=DiffusionConfig(prediction=prediction))
    actor = wake(Actor(config)).eval()
    torch.manual_seed(1)
    noise, prefix, mask = torch.randn(1, 24, 15), torch.rand(1, 24, 15), torch.zeros(1, 24)
    mask[:, :2] = 1.0
    steps = actor.diffusion.plan(5)[0]

    def plain(x, index):
        out = []
        for withheld in (True, False):
            condition = actor.conditioner(
                steps[index][None], torch.zeros(1, 6), torch.ones(1), torch.tensor([withheld])
            )
            out.append(actor.denoiser(x, prefix, mask, condition))
        return out[0] + 1.5 * (out[1] - out[0])

    with torch.inference_mode():
        expected = actor.diffusion.sample(plain, noise, prefix, mask, 5)
    assert (sample(actor, 1.5) - expected).abs().max() < 1e-5
    # beta 1 is the conditional, 0 the unconditional policy; between them it is linear per step.
    assert not torch.allclose(sample(actor, 1.0), sample(actor, 0.0))
    assert torch.allclose(sample(actor, 1.0), sample(actor, 1.0 + 1e-6), atol=1e-4)
    assert torch.allclose(sample(actor, 0.0), sample(actor, 1e-6), atol=1e-4)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_presets_are_valid_and_survive_a_round_trip(name):
    from dexpie_ros.config import from_dict, to_dict

    settings = preset(name)
    assert from_dict(PolicyConfig, to_dict(settings)) == settings
    assert settings.preset == name


def test_paper_unet_has_the_papers_size():
    config = replace(preset("paper"), observation=ObservationSpec(parts=("joints",)))
    with torch.device("meta"):
        net = Actor(config).denoiser
        count = sum(p.numel() for p in net.parameters())
    # 79.6 M in the copied implementation; the missing full-resolution level adds its own blocks.
    assert 65e6 < count < 90e6


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="divide by 4"):
        PolicyConfig(action=ActionConfig(horizon=22))
    with pytest.raises(ValueError, match="unknown"):
        preset("nope")
    with pytest.raises(ValueError, match="even"):
        DenoiserConfig(kernel=4)


def test_training_loss_ignores_prefix_and_padding():
    torch.manual_seed(0)
    actor = wake(Actor(tiny(TINY_MLP, diffusion=DiffusionConfig(prediction="sample"))))
    actions = torch.rand(2, 24, 15)
    draws = Draws(
        torch.randn(2, 24, 15), torch.tensor([5, 50]), torch.tensor([4, 0]), torch.zeros(2) > 1
    )

    def loss(values, valid=(24, 10)):
        batch = Batch(
            torch.zeros(2, 6), values, torch.tensor(valid), torch.ones(2), torch.ones(2)
        )  # fmt: skip
        return actor(batch, draws)

    base = loss(actions)
    assert base.isfinite()
    gradient = torch.autograd.grad(loss(actions.requires_grad_()), actions)[0]
    # The target of a prefix slot is not learned: only its role as an input has a gradient.
    assert gradient[0, :4].abs().sum() > 0
    assert np.isfinite(gradient.numpy()).all()


def test_prefix_inputs_golden_numbers():
    prefix = torch.arange(4.0)[None, :, None].square().expand(-1, -1, 15)  # 0, 1, 4, 9
    rows = prefix_inputs(prefix, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    assert rows.shape == (1, 4, 31)
    assert rows[0, :, 0].tolist() == [1, 1, 1, 0]
    assert rows[0, :, 1].tolist() == [0, 1, 4, 0]
    assert rows[0, :, 16].tolist() == [0, 4, 12, 0]  # changes 1 and 3, times H = 4


@pytest.mark.parametrize("prefix_conditioning", [True, False])
@pytest.mark.parametrize("channels", [(16,), (16, 32), (16, 32, 64)])
def test_fast_unet_equals_the_trained_one(channels, prefix_conditioning):
    torch.manual_seed(0)
    denoiser = replace(TINY_UNET, channels=channels, prefix_conditioning=prefix_conditioning)
    actor = wake(Actor(tiny(denoiser))).eval()
    plain = {beta: sample(actor, beta) for beta in (0.0, 1.0, 1.5)}
    actor.prepare()
    for beta, expected in plain.items():  # one row and two
        assert (sample(actor, beta) - expected).abs().max() < 1e-5


def test_compiled_unet_equals_the_trained_one():
    torch.manual_seed(0)
    actor = wake(Actor(tiny(TINY_UNET))).eval()
    plain = sample(actor, 1.5)
    actor.prepare(backend="eager")  # what inductor would be given, without its minute
    assert (sample(actor, 1.5) - plain).abs().max() < 1e-5


def test_packing_is_given_up_where_it_would_be_wrong(monkeypatch):
    weight, bias, x = torch.randn(4, 6), torch.randn(4), torch.randn(2, 6)
    expected = x @ weight.T + bias
    assert torch.allclose(product(weight, bias, 2)(x), expected, atol=1e-6)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda x, *a: x @ (0 * weight).T)
    assert torch.allclose(product(weight, bias, 2)(x), expected, atol=1e-6)
