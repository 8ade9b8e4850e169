"""The residual MLP: what its output over the slots can be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexpie_ros.policy.mlp import MLPDenoiser, smooth_modes
from dexpie_ros.policy.presets import preset
from dexpie_ros.policy.settings import DenoiserConfig, DiffusionConfig, PolicyConfig

TINY = DenoiserConfig(kind="mlp", width=32, blocks=2, step_embedding=16, vector_embedding=16)


def test_three_slots_in_two_modes_are_their_regression_line():
    # What bends is (1, -2, 1) / sqrt 6; all else is kept.
    bend = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
    assert np.allclose(smooth_modes(3, 2).numpy(), np.eye(3) - bend, atol=1e-6)
    kept = smooth_modes(3, 2) @ torch.tensor([0.0, 3.0, 0.0])
    assert kept.tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("count", [2, 6, 24])
def test_modes_keep_lines_and_drop_what_jerks(count):
    project = smooth_modes(24, count).double()
    line = torch.linspace(-1.0, 2.0, 24, dtype=torch.float64)
    assert torch.allclose(project @ project, project, atol=1e-6)
    assert torch.allclose(project @ line, line, atol=1e-6)
    assert int(torch.linalg.matrix_rank(project, rtol=1e-4)) == count
    left = (project @ torch.tensor([1.0, -1.0] * 12, dtype=torch.float64)).square().mean()
    assert left > 0.99 if count == 24 else left < 0.05


def test_all_that_the_network_puts_out_is_smooth():
    torch.manual_seed(0)
    network = MLPDenoiser(replace(TINY, modes=6), 24, 40)
    torch.nn.init.normal_(network.condition.weight)  # the skip from its noisy input is on
    out = network(
        torch.randn(8, 24, 15), torch.zeros(8, 24, 15), torch.zeros(8, 24), torch.randn(8, 40)
    )
    assert out.abs().mean() > 0.01
    assert torch.allclose(smooth_modes(24, 6) @ out, out, atol=1e-5)
    free = MLPDenoiser(TINY, 24, 40)
    assert network.state_dict().keys() == free.state_dict().keys()  # older weights fit


def test_modes_are_refused_where_the_output_is_no_chunk():
    sample = DiffusionConfig(prediction="sample")
    assert preset("cpu").denoiser.modes == 6
    for denoiser, diffusion in (
        (replace(TINY, modes=6), DiffusionConfig()),
        (DenoiserConfig(modes=6), sample),
    ):
        with pytest.raises(ValueError, match="modes: needs kind mlp and"):
            PolicyConfig(denoiser=denoiser, diffusion=diffusion)
    with pytest.raises(ValueError, match="modes: 25 of 24 slots"):
        PolicyConfig(denoiser=replace(TINY, modes=25), diffusion=sample)
