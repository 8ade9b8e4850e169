"""Encoder weights that are damaged, or asked for at random where that means no normalisation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from policies import tiny_config
from test_policy_vision import SMALL, SPEC

from dexpie_ros.policy import r3m
from dexpie_ros.policy.encoders import build_encoder
from dexpie_ros.policy.r3m import WeightsError
from dexpie_ros.policy.settings import EncoderConfig


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused_whatever_the_damage(tmp_path, zipped):
    path = tmp_path / "model.pt"
    state = {f"module.convnet.layer{i}": torch.zeros(4) for i in range(3)}
    torch.save({"r3m": state}, path, _use_new_zipfile_serialization=zipped)
    data, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            r3m.read(path)
        except WeightsError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 50  # the rest differs in numbers that nobody can tell from good ones


def test_keys_that_are_no_names_are_refused(tmp_path):
    torch.save({"r3m": {1: torch.zeros(1)}}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"no keys module\.convnet"):
        r3m.read(tmp_path / "model.pt")


def test_a_broken_conversion_is_made_anew(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"r3m": {"module.convnet.conv1.weight": torch.ones(3)}}, path)
    good = r3m.read(path)
    converted = tmp_path / "model.pt.safetensors"
    converted.write_bytes(converted.read_bytes()[:-2])
    again = r3m.read(path)
    assert torch.equal(again.tensors["conv1.weight"], good.tensors["conv1.weight"])
    assert r3m.read(converted).sha256 == good.sha256


def test_a_resnet_without_weights_says_that_it_normalises_nothing(caplog):
    plain = EncoderConfig(weights="random", image_size=32)
    for settings, said in (
        (plain, True),
        (replace(plain, normalization="groupnorm"), False),
        (SMALL, False),
    ):
        caplog.clear()
        build_encoder(tiny_config(observation=SPEC, encoder=settings))
        assert ("encoder.normalization=groupnorm" in caplog.text) == said
