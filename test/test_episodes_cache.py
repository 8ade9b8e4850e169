"""The cache gives what the reader gives, is built once, and survives company."""

import dataclasses
import multiprocessing
import os
import threading
import time

import factories
import numpy as np
import pytest
from factories import Recipe

from dexpie_ros.episodes import Collection, EpisodeError, WriterConfig, read_episode
from dexpie_ros.episodes import cache as module
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.annotations import annotate
from dexpie_ros.episodes.bag_reader import BagReader
from dexpie_ros.episodes.cache import Cache, CacheConfig, fingerprint
from dexpie_ros.episodes.mcap_records import CHUNK_CRC

ONE = CacheConfig(workers=1)


@pytest.fixture
def bag(tmp_path):
    events = ((3, '{"label": "miss"}'),)
    recipe = Recipe(steps=15, images=True, image_size=(48, 64), human=((4, 8),), events=events)
    return factories.write_episode(tmp_path / "bags/e", recipe)


def _same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), field
        elif field.name != "cameras":
            assert x == y, field.name


def test_an_entry_equals_the_episode(bag, tmp_path):
    cached, direct = Cache(tmp_path / "cache", ONE).load(bag), read_episode(bag)
    _same(cached, direct)
    for camera in ("front", "wrist"):
        assert cached.images(camera).pixels.shape == (15, 224, 224, 3)
        for k in (0, 7, 14):
            assert np.array_equal(cached.images(camera)[k], direct.images(camera).shrunk(k))


def test_nothing_is_built_twice_and_annotating_costs_nothing(bag, tmp_path):
    cache = Cache(tmp_path / "cache", ONE)
    entry = cache.build([bag])[0]
    before = {path: path.stat().st_mtime_ns for path in entry.rglob("*")}
    annotate(bag, outcome="failure", interventions=[(0, factories.START_NS + 80_000_000)])
    episode = cache.load(bag)
    assert episode.outcome == "failure" and episode.human.sum() == 2
    assert before == {path: path.stat().st_mtime_ns for path in entry.rglob("*")}


def test_other_content_or_settings_are_another_entry(bag, tmp_path):
    cache = Cache(tmp_path / "cache", ONE)
    late = Cache(
        tmp_path / "cache", CacheConfig(align=AlignConfig(latency_ms={"/hand/joint_states": 40}))
    )
    small = Cache(tmp_path / "cache", CacheConfig(image_size=32))
    other = factories.write_episode(tmp_path / "bags/f", Recipe(steps=15, seed=1))
    keys = [cache.key(bag), late.key(bag), small.key(bag), cache.key(other)]
    assert len(set(keys)) == 4
    assert cache.key(bag) == Cache(tmp_path / "elsewhere", CacheConfig(workers=7)).key(bag)
    moved = bag.rename(tmp_path / "bags/moved")
    assert cache.key(moved) == keys[0]
    assert small.load(moved).images("front")[0].shape == (32, 32, 3)
    assert np.array_equal(late.load(moved).hand[:-1], cache.load(moved).hand[1:])


def test_a_bag_that_rotted_is_not_cached_in_place_of_the_whole_one(tmp_path):
    bag = factories.write_episode(
        tmp_path / "e",
        Recipe(steps=60),
        writer=WriterConfig(durable=False, chunk_bytes=8 << 10),
    )
    cache = Cache(tmp_path / "cache", ONE)
    file = next(bag.glob("*.mcap"))
    whole = file.read_bytes()
    at = BagReader(file).chunk_offsets[2] + 200
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert read_episode(bag).partial
    with pytest.raises(EpisodeError, match="damaged since it was recorded"):
        cache.load(bag)
    file.write_bytes(whole)
    assert not cache.load(bag).partial


def test_chunk_checksums_make_the_fingerprint(bag):
    """Two recordings that differ in one number of one message, all else and all lengths equal."""
    file = next(bag.glob("*.mcap"))
    before = fingerprint(bag)
    reader = BagReader(file)
    crc = reader.chunk_offsets[0] + CHUNK_CRC
    data = bytearray(file.read_bytes())
    data[crc] ^= 1
    file.write_bytes(data)
    assert fingerprint(bag) != before


def _build(root, bags):
    Cache(root, ONE).build(bags)


def test_two_processes_may_build_at_once(tmp_path):
    factories.write_collection(tmp_path / "bags", 6)
    paths = [entry.path for entry in Collection(tmp_path / "bags")]
    context = multiprocessing.get_context("fork")
    builders = [context.Process(target=_build, args=(tmp_path / "cache", paths)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    cache = Cache(tmp_path / "cache", ONE)
    assert sorted(os.listdir(cache.root)) == sorted(cache.key(path) for path in paths)
    _same(cache.load(paths[3]), read_episode(paths[3]))


@pytest.mark.parametrize("parallel", ["threads", "processes"])
def test_in_parallel_with_an_error_the_others_are_built(tmp_path, parallel):
    factories.write_collection(tmp_path / "bags", 3)
    broken = tmp_path / "bags/e001/e001_0.mcap"
    broken.write_bytes(broken.read_bytes()[:400])
    collection = Collection(tmp_path / "bags")
    cache = Cache(tmp_path / "cache", CacheConfig(workers=2, parallel=parallel))
    seen = []
    with pytest.raises(EpisodeError, match=r"e001_0\.mcap"):
        cache.episodes(collection, lambda *progress: seen.append(progress))
    assert len(seen) == 3 and seen[-1][:2] == (3, 3)
    assert (cache.root / cache.key(tmp_path / "bags/e002")).is_dir()


def test_a_damaged_entry_is_an_error_that_says_what_to_do(bag, tmp_path):
    cache = Cache(tmp_path / "cache", ONE)
    entry = cache.build([bag])[0]
    (entry / "arrays.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(EpisodeError, match="delete it, it is built anew"):
        cache.load(bag)


def test_a_lock_that_its_last_holder_removed_lets_nobody_in(tmp_path):
    """Who waited for it takes the file that is there now, like everybody else."""
    lock, inside, most = tmp_path / "lock", [], []

    def build():
        for _ in range(20):
            with module._one_builder(lock):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    builders = [threading.Thread(target=build) for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert len(most) == 80 and max(most) == 1 and not lock.exists()
