"""The benchmark measures what it says it measures."""

import numpy as np
import pytest

from dexpie_ros.episodes import Collection, read_episode
from dexpie_ros.episodes import benchmarks as bench
from dexpie_ros.episodes.cache import Cache, CacheConfig


def test_reference_and_cache_make_the_same_data(tmp_path):
    """The loop that the speed-up is measured against ends with the same pictures and poses."""
    bag = bench.camera_bag(tmp_path / "e", 0.6, 0)
    bench.reference_ingest(bag, tmp_path / "plain")
    bench.reference_ingest(bag, tmp_path / "frugal", frugal=True)
    plain = np.load(tmp_path / "plain/e_camera_front_color_image_raw_compressed.npy")
    frugal = np.load(tmp_path / "frugal/e_camera_front_color_image_raw_compressed.npy")
    assert plain.shape == (15, 224, 224, 3) and np.array_equal(plain, frugal)
    episode = Cache(tmp_path / "cache", CacheConfig(workers=1)).load(bag)
    assert len(episode) == 15 and not episode.flags[1:].any()
    cached = np.stack([episode.images("front")[k] for k in range(15)])
    # Halved before the bilinear filter, and read from the JPEG at half size: alike, not equal.
    assert np.abs(cached.astype(int) - plain).mean() < 12
    direct = np.stack([read_episode(bag).images("front").shrunk(k) for k in range(15)])
    assert np.array_equal(cached, direct)
    commands = np.load(tmp_path / "plain/e_control_step.npy")
    assert np.allclose(episode.command_tcp, commands)


def test_figures(tmp_path):
    recorder = bench._recorder(tmp_path, seconds=0.5)
    assert recorder["recorder_dropped"] == 0 and recorder["recorder_cores"] > 0
    assert recorder["recorder_mb_per_s"] == pytest.approx(110.6, rel=0.01)
    long = bench._long_index(tmp_path, 300)
    assert long["long_index_chunks"] >= 300 and long["open_long_index_ms"] > 0
    assert bench._listing(tmp_path, 30)["list_30_s"] > 0
    assert len(Collection(tmp_path / "many")) == 30
