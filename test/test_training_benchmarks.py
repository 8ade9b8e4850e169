"""The benchmark's references compute the same thing as what they are compared with."""

from dataclasses import replace

import torch
from policies import TINY_UNET
from test_policy_diffusion import wake

from dexpie_ros.policy.actor import Actor
from dexpie_ros.policy.encoders import build_encoder
from dexpie_ros.policy.presets import preset
from dexpie_ros.training import benchmarks


def small_actor():
    config = preset("paper")
    encoder = replace(config.encoder, arch="small_cnn", weights="random", image_size=32)
    config = replace(config, encoder=encoder, denoiser=TINY_UNET)
    torch.manual_seed(0)
    return wake(Actor(config, build_encoder(config)).eval())


def test_plain_and_fast_chunks_are_the_same_chunk():
    actor = small_actor()
    inputs = benchmarks._chunk_inputs(actor)
    plain = benchmarks.plain_chunk(actor, *inputs, actor.config.inference)
    actor.prepare()
    fast = benchmarks._fast_chunk(actor, *inputs, actor.config.inference)
    assert plain.abs().max() > 0.1
    assert (plain - fast).abs().max() < 1e-4  # untrained: what rounding does is magnified


def test_learning_noise_leaves_the_encoder_alone_and_lowers_the_loss():
    actor = small_actor()
    before = {k: v.clone() for k, v in actor.state_dict().items()}
    benchmarks._learn_noise(actor, 3)
    after = actor.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("encoder."))
    assert not torch.equal(before["denoiser.output.weight"], after["denoiser.output.weight"])
    assert not any(p.requires_grad for p in actor.parameters())


def test_no_stalls_in_virtual_time():
    assert benchmarks.count_stalls(400) == 0


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with benchmarks.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_both_training_loops_train():
    figures = benchmarks._training_speed(3, 1)
    assert all(value > 0 for value in figures.values())
    assert set(figures) == {
        "train_speedup_vs_plain",
        "train_samples_per_s",
        "train_plain_samples_per_s",
    }
