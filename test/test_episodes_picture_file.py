"""The pictures of a camera in one file: every step its own, errors that leave nobody writing."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_episodes_images import natural

from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.images import RecordedImages, encode_jpeg
from dexpie_ros.episodes.picture_file import CachedImages, write_pictures

ROWS = np.array([0, 0, 1, 2, 2, 2, 3, *range(4, 30)])


def recorded(broken=()):
    pictures = [memoryview(encode_jpeg(natural(48, 64, seed))) for seed in range(30)]
    for row in broken:
        pictures[row] = memoryview(b"no picture")
    return RecordedImages("bag: topic", pictures, ROWS, np.arange(30))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("most", [None, 1000])
def test_every_step_has_its_picture(tmp_path, monkeypatch, threads, most):
    images, path = recorded(), tmp_path / "front.npy"
    if most is not None:  # a disk that takes a little at a time
        pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:most], at))
    with ThreadPoolExecutor(threads) as pool:
        write_pictures(path, images, 32, pool)
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    assert pixels.shape == (33, 32, 32, 3) and pixels.dtype == np.uint8
    for k in range(len(ROWS)):
        assert np.array_equal(CachedImages(pixels)[k], images.shrunk(k, 32))


def test_a_picture_in_force_for_several_steps_is_decoded_once(tmp_path, monkeypatch):
    asked, shrunk = [], RecordedImages.shrunk
    monkeypatch.setattr(
        RecordedImages, "shrunk", lambda self, k, size: (asked.append(k), shrunk(self, k, size))[1]
    )
    with ThreadPoolExecutor(2) as pool:
        write_pictures(tmp_path / "front.npy", recorded(), 32, pool)
    assert sorted(asked) == [0, 2, 3, *range(6, 33)]


def test_raw_pixels_of_the_right_size_are_written_as_they_are(tmp_path):
    picture = natural(32, 32)
    images = RecordedImages(
        "bag", [memoryview(picture.tobytes())], np.zeros(3, int), np.zeros(1, int), (32, 32)
    )
    with ThreadPoolExecutor(1) as pool:
        write_pictures(tmp_path / "a.npy", images, 32, pool)
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.stack([picture] * 3))


def test_after_an_error_nobody_writes(tmp_path, monkeypatch):
    """The file's number may be another file's by then."""
    closed, late = [], []
    pwrite, path = os.pwrite, tmp_path / "front.npy"

    def watch(descriptor, data, at):
        late.extend(closed)
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", watch)
    with ThreadPoolExecutor(3) as pool:
        with pytest.raises(EpisodeError, match=r"bag: topic: step 0: .*cannot be decoded"):
            write_pictures(path, recorded(broken=[0]), 32, pool)
        closed.append(True)
        pool.submit(lambda: None).result()
    assert not late


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="No space left"):
        write_pictures(tmp_path / "front.npy", recorded(), 32, pool)
