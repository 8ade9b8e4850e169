"""The chunk as the way on from its prefix: by hand, exact for every prediction, old and fast path."""

from dataclasses import replace

import pytest
import torch

from dexpie_ros.policy.actor import Actor
from dexpie_ros.policy.departure import Departure
from dexpie_ros.policy.diffusion import Diffusion, prefix_mask
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.settings import (
    DenoiserConfig,
    DiffusionConfig,
    InferenceSettings,
    PolicyConfig,
)

PREDICTIONS = ("epsilon", "sample", "v_prediction")
UNET = DenoiserConfig(channels=(16, 32), groups=4, step_embedding=16)
MLP = DenoiserConfig(kind="mlp", width=32, blocks=2, step_embedding=16, vector_embedding=16)
NETWORKS = pytest.mark.parametrize("network", [UNET, MLP], ids=["unet", "mlp"])


def actor(network, prediction, ramp=8, scale=0.1):
    """An actor whose every input reaches its output (or none does: ``scale`` 0)."""
    config = PolicyConfig(
        observation=ObservationSpec(parts=("hand",)),
        denoiser=replace(network, depart_from_prefix=True, depart_ramp=ramp),
        diffusion=DiffusionConfig(prediction=prediction),
    )
    torch.manual_seed(0)
    out = Actor(config).eval()
    with torch.no_grad():
        for parameter in out.parameters():
            parameter.mul_(scale > 0).add_(scale * torch.randn(parameter.shape))
    return out


def chunk(of, prefix, delay, noise, beta=1.0):
    batch = len(noise)
    mask = prefix_mask(torch.full((batch,), delay), 24).float()
    settings = InferenceSettings(beta=beta, steps=10)
    return of.sample(torch.zeros(batch, 6), noise, prefix, mask, settings)


def test_departure_golden_numbers():
    """Slot 7 of a ramp of 32 at s = 0.96, r = 0.28: c = 7/32, c s = 0.21, n = 0.35, s' = 0.6."""
    prefix, mask = torch.full((1, 9, 1), 0.5), torch.tensor([[1.0, 1.0, *7 * [0.0]]])
    prefix[0, 2:] = 9.0  # not of the prefix
    signal, spread = torch.full((1, 1, 1), 0.96), torch.full((1, 1, 1), 0.28)
    noisy, output = torch.full((1, 9, 1), 0.55), torch.full((1, 9, 1), 0.1)
    # z = (0.55 - 0.48) / 0.35 = 0.2, y = 0.6 z - 0.8 F = 0.04, eps = 0.8 z + 0.6 F = 0.22,
    # x0 = 0.5 + 7/32 y = 0.50875 and 0.96 x0 + 0.28 eps is 0.55 again.
    expected = {"epsilon": 0.22, "v_prediction": 0.96 * 0.22 - 0.28 * 0.50875}
    expected["sample"] = 0.5 + 7 / 32 * 0.1
    for prediction, value in expected.items():
        departure = Departure.of(prefix, mask, 32, prediction)
        assert departure.last.item() == 0.5
        assert departure.share[0, [2, 8], 0].tolist() == [1 / 32, 7 / 32]
        out = departure.at(signal, spread)(output, noisy)
        assert out[0, 8].item() == pytest.approx(value, abs=1e-6)


def test_the_share_grows_to_one_behind_the_prefix_and_is_one_without():
    departure = Departure.of(
        torch.rand(2, 24, 15), prefix_mask(torch.tensor([3, 0]), 24).float(), 8, "sample"
    )
    ramped = departure.share[0, :, 0]
    assert ramped[3:11].tolist() == [j / 8 for j in range(1, 9)]
    assert (ramped[11:] == 1).all()
    assert (departure.share[1] == 1).all()
    assert (departure.last[1] == 0).all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("step", [0, 37, 99])
def test_the_network_that_knows_the_departure_predicts_the_target(prediction, step):
    """Any chunk can be said this way, at every step and behind every prefix."""
    generator = torch.Generator().manual_seed(step)
    clean, noise = 2 * torch.rand(5, 24, 15, generator=generator) - 1, torch.randn(5, 24, 15)
    mask = prefix_mask(torch.arange(5), 24).float()
    diffusion, steps = Diffusion(DiffusionConfig(prediction=prediction)), torch.full((5,), step)
    signal, spread = diffusion.levels(steps)
    noisy = diffusion.add_noise(clean, noise, steps)
    departure = Departure.of(clean, mask, 8, prediction)
    way = (clean - departure.last) / departure.share
    output = way
    if prediction != "sample":
        size = ((departure.share * signal) ** 2 + spread**2).sqrt()
        output = (departure.share * signal * noise - spread * way) / size
    predicted = departure.at(signal, spread)(output, noisy)
    target = diffusion.target(clean, noise, steps)
    assert torch.allclose(predicted, target, atol=2e-4)
    # v without a prefix is v; the chunk itself without a prefix is what the network says.
    if prediction != "epsilon":
        assert torch.allclose(output[0], target[0], atol=1e-5)


@NETWORKS
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_says_nothing_stays_where_the_prefix_ends(network, prediction):
    """`sample`: there; else it follows what it takes departures for, c times unit noise, about it."""
    prefix, noise = 0.5 * torch.rand(3, 24, 15) - 0.25, torch.randn(3, 24, 15)
    out = chunk(actor(network, prediction, scale=0.0), prefix, 4, noise)
    assert torch.equal(out[:, :4], prefix[:, :4])
    away = (out - prefix[:, 3:4])[:, 4:]
    if prediction == "sample":
        assert torch.equal(away, torch.zeros_like(away))
    else:
        share = torch.tensor([j / 8 for j in range(1, 8)])[None, :, None]
        assert (away[:, :7].abs() <= 1.2 * share * (noise[:, 4:11].abs() + 0.2)).all()


@NETWORKS
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_guidance_and_the_fast_path_are_those_of_the_plain_network(network, prediction):
    """Two chunks, both branches and all steps ahead in one batch, against step by step."""
    net = actor(network, prediction)
    prefix, noise = 0.5 * torch.rand(2, 24, 15), torch.randn(2, 24, 15)
    mask = prefix_mask(torch.tensor([4, 4]), 24).float()
    departure = Departure.of(prefix, mask, 8, prediction)
    steps = net.diffusion.plan(10)[0]

    def plain(x, index):
        step = steps[index].expand(2)
        out = []
        for withheld in (True, False):
            null = torch.tensor([withheld, withheld])
            condition = net.conditioner(step, torch.zeros(2, 6), torch.ones(2), null)
            value = net.denoiser(x, prefix, mask, condition)
            out.append(departure.at(*net.diffusion.levels(step))(value, x))
        return out[0] + 1.5 * (out[1] - out[0])

    with torch.inference_mode():
        expected = net.diffusion.sample(plain, noise, prefix, mask, 10)
    assert (chunk(net, prefix, 4, noise, 1.5) - expected).abs().max() < 1e-5
    net.prepare()
    assert (chunk(net, prefix, 4, noise, 1.5) - expected).abs().max() < 1e-5


def test_a_network_that_does_not_see_the_prefix_cannot_depart_from_it():
    blind = replace(UNET, depart_from_prefix=True, prefix_conditioning=False)
    with pytest.raises(ValueError, match="depart_from_prefix"):
        PolicyConfig(denoiser=blind)
    with pytest.raises(ValueError, match="depart_ramp"):
        PolicyConfig(denoiser=replace(UNET, depart_ramp=8))
