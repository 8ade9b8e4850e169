"""Image encoders: R3M files, frozen BatchNorm, input range, augmentation, vision policies."""

import hashlib
import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from policies import tiny_config
from synthetic import reach
from test_training_loop import FAST

from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.control.types import Observation, RobotState
from dexpie_ros.geometry import Pose
from dexpie_ros.policy import r3m
from dexpie_ros.policy.augmentation import center_crop, color_jitter, random_crop
from dexpie_ros.policy.encoders import Encoder, build_encoder
from dexpie_ros.policy.fast import fold_encoder
from dexpie_ros.policy.images import stack
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy, PolicyError
from dexpie_ros.policy.r3m import WeightsError
from dexpie_ros.policy.resnet import FrozenBatchNorm, ResNet, SmallCNN, group_norm
from dexpie_ros.policy.settings import EncoderConfig
from dexpie_ros.training.batches import Frames, cacheable, frozen_features
from dexpie_ros.training.dataset import DatasetError
from dexpie_ros.training.recipes import build
from dexpie_ros.training.train import ActorConfig, train_actor

SPEC = ObservationSpec(parts=("tcp", "hand"), images=("front", "wrist"))
SMALL = EncoderConfig(arch="small_cnn", weights="random", image_size=32)


def published(path, arch="resnet18", seed=0):
    """A file in the layout of R3M's model.pt, with random weights and moving statistics."""
    torch.manual_seed(seed)
    state = ResNet(arch, FrozenBatchNorm).state_dict()
    content = {f"module.convnet.{k}": v + 0.01 * torch.randn_like(v) for k, v in state.items()}
    for key in [k for k in content if k.endswith("running_var")]:
        content[key] = content[key].abs() + 0.5
        content[key.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    content["module.lang_rew.pred.0.weight"] = torch.zeros(3)
    torch.save({"r3m": content, "global_step": 1}, path)
    return content


def state_size(arch):
    with torch.device("meta"):
        return sum(p.numel() for p in ResNet(arch, FrozenBatchNorm).parameters())


def test_resnets_have_torchvisions_names_and_sizes():
    assert [state_size(f"resnet{n}") for n in (18, 34, 50)] == [11176512, 21284672, 23508032]
    with torch.device("meta"):
        keys = set(ResNet("resnet50", FrozenBatchNorm).state_dict())
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_mean",
        "layer4.2.conv3.weight",
        "layer3.5.bn3.bias",
    } <= keys
    assert len(keys) == 265  # as in torchvision, without fc and num_batches_tracked


def test_published_file_is_read_once_and_known_by_its_hash(tmp_path):
    path = tmp_path / "model.pt"
    content = published(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = r3m.read(path)
    assert weights.sha256 == digest
    assert torch.equal(weights.tensors["conv1.weight"], content["module.convnet.conv1.weight"])
    assert not any("lang" in k or "tracked" in k for k in weights.tensors)
    converted = tmp_path / "model.pt.safetensors"
    stamp = converted.stat().st_mtime_ns
    assert r3m.read(path).sha256 == r3m.read(converted).sha256 == digest
    assert converted.stat().st_mtime_ns == stamp
    published(path, seed=1)  # another file under the same name is not mistaken for the old one
    again = r3m.read(path)
    assert again.sha256 != digest
    assert not torch.equal(again.tensors["conv1.weight"], weights.tensors["conv1.weight"])


class Harmful:
    def __reduce__(self):
        return print, ("code ran",)


def test_anything_else_is_refused(tmp_path, capsys):
    path = tmp_path / "model.pt"
    for content, message in (
        ({"state_dict": {}}, "no entry 'r3m'"),
        ({"r3m": {"convnet.conv1.weight": torch.zeros(1)}}, "no keys module.convnet"),
        ([1], "no entry 'r3m'"),
    ):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=message):
            r3m.read(path)
    torch.save({"r3m": Harmful()}, path)
    with pytest.raises(WeightsError, match="refused"):
        r3m.read(path)
    path.write_bytes(pickle.dumps({"r3m": Harmful()}, protocol=2))
    with pytest.raises(WeightsError, match="refused"):
        r3m.read(path)
    assert "code ran" not in capsys.readouterr().out
    for data in (b"", b"not a file"):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="refused"):
            r3m.read(path)
    with pytest.raises(WeightsError, match=r"no such file.*random"):
        r3m.read(tmp_path / "nothing.pt")
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    with pytest.raises(WeightsError, match="safetensors"):
        r3m.read(tmp_path / "x.safetensors")


def test_weights_must_fit_and_random_must_be_asked_for(tmp_path, caplog):
    path = tmp_path / "model.pt"
    published(path, "resnet18")
    fitting = tiny_config(observation=SPEC, encoder=EncoderConfig(weights=str(path)))
    encoder = build_encoder(fitting)
    assert "resnet18 from model.pt, SHA-256 " in encoder.origin
    other = replace(fitting, encoder=EncoderConfig(weights=str(path), arch="resnet34"))
    with pytest.raises(WeightsError, match="another network"):
        build_encoder(other)
    with pytest.raises(WeightsError, match=r"encoder\.weights: empty"):
        build_encoder(replace(fitting, encoder=EncoderConfig()))
    with caplog.at_level(logging.WARNING):
        random = build_encoder(replace(fitting, encoder=SMALL))
    assert "random initialisation, as asked for" in random.origin
    assert "random initialisation" in caplog.text
    with pytest.raises(ConfigError, match="small_cnn has no published weights"):
        from_dict(EncoderConfig, {"arch": "small_cnn", "weights": "x.pt"})
    assert build_encoder(tiny_config()) is None


def test_groupnorm_starts_from_batchnorms_scale(tmp_path):
    path = tmp_path / "model.pt"
    content = published(path)
    trunk = ResNet("resnet18", group_norm)
    assert "bn1.weight" in r3m.load_into(trunk, r3m.read(path))
    assert torch.equal(trunk.bn1.weight, content["module.convnet.bn1.weight"])


def test_batchnorm_never_changes_in_training():
    torch.manual_seed(0)
    trunk = ResNet("resnet18", FrozenBatchNorm).train()
    x = torch.randn(2, 3, 32, 32)
    before = {k: v.clone() for k, v in trunk.state_dict().items() if "running" in k}
    first = trunk(x)
    alone = torch.cat([trunk(x[:1]), trunk(x[1:])])
    assert torch.allclose(first, alone, atol=1e-5)  # no statistics of the batch
    assert all(torch.equal(v, trunk.state_dict()[k]) for k, v in before.items())
    first.sum().backward()
    assert trunk.bn1.weight.grad is not None


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_shared_or_per_view_trainable_or_frozen(shared, trainable):
    torch.manual_seed(0)
    settings = replace(SMALL, shared=shared, trainable=trainable)
    encoder = Encoder(settings, 2)
    images = torch.randint(0, 256, (3, 2, 3, 32, 32), dtype=torch.uint8)
    out = encoder(images)
    assert out.shape == (3, 256)
    assert out.requires_grad == trainable
    assert len(encoder.nets) == (1 if shared else 2)
    swapped = encoder(images.flip(1))
    assert torch.allclose(swapped[:, :128], out[:, 128:], atol=1e-6) == shared
    assert any(p.requires_grad for p in encoder.parameters()) == trainable
    # uint8 and floats in 0 .. 1 are the same picture
    assert torch.allclose(encoder(images.float() / 255), out, atol=1e-5)


def test_input_range_and_shape_are_checked():
    encoder = Encoder(SMALL, 2)
    with pytest.raises(ValueError, match=r"from 0 to 255.*0 \.\. 1"):
        encoder(torch.tensor([0.0, 255.0]).expand(1, 2, 3, 16, 2))
    with pytest.raises(ValueError, match=r"from -1 to"):
        encoder(torch.full((1, 2, 3, 16, 16), -1.0))
    for broken in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"give uint8 or floats in 0 \.\. 1"):
            encoder(torch.tensor([0.5, broken]).expand(1, 2, 3, 16, 2))
    with pytest.raises(ValueError, match=r"expected \(B, 2, 3, S, S\)"):
        encoder(torch.zeros(1, 3, 16, 16))


def test_spatial_softmax_tells_where_a_spot_is():
    net = SmallCNN()
    with torch.no_grad():
        for layer in net.layers:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.abs_()  # bright in, strong out
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 8:14, 40:46] = 8.0
    images[1, :, 40:46, 8:14] = 8.0
    with torch.no_grad():
        x, y = net(images).chunk(2, dim=1)
    assert x[0].median() > x[1].median() + 0.2
    assert y[0].median() < y[1].median() - 0.2


def test_crops_keep_size_and_stay_inside():
    ramp = torch.linspace(0, 1, 64).expand(5, 3, 64, 64)
    assert center_crop(ramp, 0.0) is ramp
    middle = center_crop(ramp, 0.25)
    # 0.75 of the width around the middle: the edges move inward by an eighth.
    assert middle[0, 0, 0, 0].item() == pytest.approx(0.125, abs=0.01)
    assert middle[0, 0, 0, -1].item() == pytest.approx(0.875, abs=0.01)
    generator = torch.Generator().manual_seed(0)
    moved = random_crop(ramp, 0.25, generator)
    spans = moved[:, 0, 0, -1] - moved[:, 0, 0, 0]
    assert torch.allclose(spans, torch.full((5,), 0.75), atol=0.02)
    assert moved[:, 0, 0, 0].std() > 0.01
    generator.manual_seed(0)
    assert torch.equal(random_crop(ramp, 0.25, generator), moved)


def test_color_jitter_changes_what_it_says_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    images = 0.3 + 0.4 * torch.rand(4, 3, 16, 16, generator=generator)
    assert color_jitter(images, (0, 0, 0, 0), generator) is images
    luma = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    for strength in ((0, 0, 0.5, 0), (0, 0, 0, 0.1)):  # saturation and hue keep the brightness
        out = color_jitter(images, strength, generator)
        assert torch.allclose((out * luma).sum(1), (images * luma).sum(1), atol=2e-3)
        assert not torch.allclose(out, images, atol=1e-3)
    out = color_jitter(images, (0.3, 0, 0, 0), generator)
    ratio = out / images
    assert torch.allclose(ratio, ratio[:, :1, :1, :1].expand_as(ratio), atol=2e-3)
    out = color_jitter(images, (0, 0.3, 0, 0), generator)
    mean = [(x * luma).sum(1).mean(dim=(1, 2)) for x in (out, images)]
    assert torch.allclose(*mean, atol=2e-3)  # contrast turns around the mean
    gray = color_jitter(images, (0.3, 0.4, 0.5, 0.08), generator)
    assert 0.0 <= gray.min()
    assert gray.max() <= 1.0


class Pictures(list):
    """Stands for a camera's recording."""


def with_images(episode):
    rng = np.random.default_rng(episode.info.seed + 2)
    pictures = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(len(episode))]
    return replace(episode, cameras={"front": Pictures(pictures), "wrist": Pictures(pictures)})


@pytest.fixture(scope="module")
def episodes():
    return [with_images(reach(i, 30)) for i in range(2)]


def run_config(**changes):
    policy = tiny_config(observation=SPEC, encoder=replace(SMALL, **changes))
    return ActorConfig(recipe="bc", policy=policy, loop=replace(FAST, batch_size=8, iterations=4))


def observation(episode, t):
    robot = RobotState(
        0, episode.joints[t], np.zeros(6), Pose.from_matrix(episode.tcp[t]), episode.hand[t]
    )
    return Observation(0, robot, images={k: v[t] for k, v in episode.cameras.items()})


def test_vision_policy_trains_saves_and_runs(episodes, tmp_path):
    folder = train_actor(run_config(random_crop=0.1), episodes, None, tmp_path)
    policy = Policy.load(folder, offered=("images",))
    assert "random initialisation, as asked for" in policy.encoder_origin
    assert "random initialisation" in (folder / "card.md").read_text()
    vector, pictures = policy.observe(observation(episodes[0], 3))
    assert pictures.shape == (2, 3, 32, 32)
    tcp, _ = policy.sample(vector, episodes[0].tcp[3], pictures)
    assert np.isfinite(tcp).all()
    other, _ = policy.sample(vector, episodes[0].tcp[3], 255 - pictures)
    assert not np.array_equal(tcp, other)
    with pytest.raises(PolicyError, match="no images were given"):
        policy.sample(vector, episodes[0].tcp[3])
    with pytest.raises(PolicyError, match="cameras front, wrist, but no images are at hand"):
        Policy.load(folder, offered=("objects",))


def test_vision_run_resumes_exactly(episodes, tmp_path):
    config = run_config(random_crop=0.1, color_jitter=(0.3, 0.4, 0.5, 0.08))
    whole = train_actor(config, episodes, None, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(now):
        raise Stop

    short = replace(config, loop=replace(config.loop, log_every=2))
    with pytest.raises(Stop):
        train_actor(short, episodes, None, tmp_path / "cut", stop)
    cut = train_actor(short, episodes, None, tmp_path / "cut")
    names = ("model.safetensors", "normalizer.json")
    assert [(cut / n).read_bytes() for n in names] == [(whole / n).read_bytes() for n in names]


def test_frozen_features_are_what_the_encoder_says_and_encoded_once(episodes, tmp_path):
    data = build("bc", episodes, None, SPEC, 24)
    encoder = Encoder(replace(SMALL, trainable=False), 2)
    assert cacheable(encoder)
    assert not cacheable(Encoder(SMALL, 2))
    assert not cacheable(Encoder(replace(SMALL, trainable=False, random_crop=0.1), 2))
    frames = Frames(data, SPEC.images, 32)
    features = frozen_features(encoder, frames, len(data.windows), torch.device("cpu"))
    frames.close()
    pictures = stack({k: v[4] for k, v in episodes[1].cameras.items()}, SPEC.images, 32)
    expected = encoder(torch.from_numpy(pictures)[None])[0]
    assert torch.allclose(features[30 + 4], expected, atol=1e-5)
    heard = []
    config = run_config(trainable=False)
    folder = train_actor(
        config, episodes, None, tmp_path, encoding=lambda done, total: heard.append((done, total))
    )
    assert heard == [(60, 60)]
    assert Policy.load(folder).config.encoder.trainable is False


def test_missing_or_wrong_pictures_are_named(episodes, tmp_path):
    with pytest.raises(DatasetError, match=r"1 episodes lack images .episode-0: front, wrist"):
        train_actor(run_config(), [reach(0, 30)], None, tmp_path)
    with pytest.raises(ValueError, match="camera front: picture of shape"):
        stack({"front": np.zeros((4, 4), np.uint8)}, ("front",), 32)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "small_cnn"])
def test_folding_batchnorm_changes_nothing(arch, tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(arch=arch, weights="random", image_size=64), 2)
    for name, value in encoder.state_dict().items():
        if "running_mean" in name:
            value.normal_(0, 0.1)
        elif "running_var" in name:
            value.uniform_(0.5, 2.0)
    folded = fold_encoder(encoder)
    assert not any(isinstance(m, FrozenBatchNorm) for m in folded.modules())
    images = torch.randint(0, 256, (1, 2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        a, b = encoder(images), folded(images)
    assert (a - b).abs().max() < 1e-5 * (1 + a.abs().max())
    assert any(isinstance(m, FrozenBatchNorm) for m in encoder.modules()) == (arch != "small_cnn")
