"""DDPM sampling against diffusers' scheduler, and as a setting of a policy."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from policies import tiny_policy

from dexpie_ros.policy.diffusion import Diffusion
from dexpie_ros.policy.policy import Policy
from dexpie_ros.policy.settings import DiffusionConfig, InferenceSettings

DDPM = DiffusionConfig(prediction="sample", sampler="ddpm")


def given(values, monkeypatch):
    """Lets diffusers draw ``values`` one after the other."""
    source = iter(values)
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(source)
    )


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("steps", [10, 100])
def test_sampling_equals_the_diffusers_scheduler(prediction, steps, monkeypatch):
    ours = Diffusion(DiffusionConfig(prediction=prediction, sampler="ddpm"))
    theirs = DDPMScheduler(
        100, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, clip_sample=True
    )
    theirs.set_timesteps(steps)
    assert ours.plan(steps)[0].tolist() == theirs.timesteps.tolist()
    torch.manual_seed(0)
    weight = torch.randn(15, 15) / 4
    noise, prefix, mask = torch.randn(2, 24, 15), torch.rand(2, 24, 15), torch.zeros(2, 24)
    fresh = torch.randn(steps, 2, 24, 15)
    mask[:, :3] = 1.0
    given(fresh, monkeypatch)
    x = noise
    for t in theirs.timesteps:
        x = torch.where(mask.bool()[..., None], prefix, x)
        x = theirs.step(torch.tanh(x @ weight), t, x).prev_sample
    x = torch.where(mask.bool()[..., None], prefix, x)
    out = ours.sample(lambda y, _: torch.tanh(y @ weight), noise, prefix, mask, steps, fresh)
    assert (out - x).abs().max() < 1e-4
    assert torch.equal(out[:, :3], prefix[:, :3])
    plain = ours.sample(lambda y, _: torch.tanh(y @ weight), noise, prefix, mask, steps)
    assert (plain - out).abs().max() > 0.01  # DDIM is something else


def test_a_step_by_hand():
    """abar_t = 0.5, abar before it 0.8, x0 = 0.4, x = 1, noise 2."""
    ours = Diffusion(DDPM)
    one = torch.ones(1, 1, 1)
    out = ours.reverse(0.4 * one, one, 0.5, 0.8, 2 * one)
    # beta = 1 - 0.625 = 0.375: sqrt(0.8) 0.375 / 0.5 = 0.67082; sqrt(0.625) 0.2 / 0.5 = 0.31623;
    # variance 0.4 * 0.375 = 0.15
    assert out.item() == pytest.approx(0.67082 * 0.4 + 0.31623 + 2 * 0.15**0.5, abs=1e-5)


def test_a_policy_samples_as_its_settings_say(tmp_path):
    settings = InferenceSettings(steps=5)
    policy = Policy.load(tiny_policy(diffusion=DDPM).save(tmp_path / "policy"))
    assert policy.config.diffusion.sampler == "ddpm"
    vector = np.linspace(-1, 1, 15)
    chunks = [policy.sample(vector, np.eye(4), seed=k, settings=settings)[1] for k in (0, 0, 1)]
    assert np.array_equal(chunks[0], chunks[1])
    assert not np.array_equal(chunks[0], chunks[2])
    quiet = InferenceSettings(steps=5, noise=0.0)
    silent = [policy.sample(vector, np.eye(4), seed=k, settings=quiet)[1] for k in (0, 1)]
    assert np.array_equal(*silent), "noise 0: no noise at any step"
    plain = tiny_policy().sample(vector, np.eye(4), seed=0, settings=settings)[1]
    assert not np.array_equal(chunks[0], plain)
