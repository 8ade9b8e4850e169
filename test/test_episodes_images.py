"""Images: one filter for training and run time, and the fast road to it."""

import cv2
import numpy as np
import pytest

from dexpie_ros.episodes import images
from dexpie_ros.episodes.images import (
    decode_jpeg,
    decode_shrunk,
    encode_jpeg,
    jpeg_size,
    shrink,
)


def natural(height, width, seed=0):
    """Structure at several scales, as a camera sees it."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for scale, weight in ((6, 50), (24, 30), (80, 12)):
        noise = rng.normal(0, weight, (scale, scale, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def test_colours_keep_their_places():
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 200
    again = decode_jpeg(encode_jpeg(image))
    assert again[..., 0].mean() > 190 and again[..., 2].mean() < 10


@pytest.mark.parametrize("size", [(480, 640), (240, 320), (900, 1200), (224, 224), (100, 80)])
def test_the_fast_road_leads_to_the_same_picture(size):
    jpeg = encode_jpeg(natural(*size), 90)
    assert jpeg_size(jpeg) == size
    slow, fast = shrink(decode_jpeg(jpeg)), decode_shrunk(jpeg)
    assert fast.shape == slow.shape == (224, 224, 3)
    difference = np.abs(slow.astype(int) - fast)
    assert difference.mean() < 1.5 and difference.max() < 40


def test_shrinking_does_not_alias():
    """Stripes of one pixel become grey, where bilinear alone would show false bands."""
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(shrink(stripes).astype(int) - 127).max() <= 2
    assert np.ptp(cv2.resize(stripes, (224, 224))) > 100


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"no picture at all", bytes(100)])
def test_what_is_no_picture_is_a_value_error(data):
    with pytest.raises(ValueError, match="image"):
        decode_jpeg(data)
    with pytest.raises(ValueError, match="image"):
        decode_shrunk(data)


def test_a_header_that_never_ends_is_read_in_bounded_time():
    assert jpeg_size(b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50_000) == (0, 0)


@pytest.mark.parametrize("size", [(480, 640), (900, 1200), (101, 77), (224, 224)])
def test_an_older_opencv_decodes_the_same_pixels(size, monkeypatch):
    """It cannot give RGB straight away: its BGR is turned round."""
    image = natural(*size)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    full = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    encoded = [
        encode_jpeg(image, 90),
        cv2.imencode(".jpg", bgr, full)[1].tobytes(),
        cv2.imencode(".jpg", image[..., 0])[1].tobytes(),
        cv2.imencode(".png", bgr)[1].tobytes(),
    ]
    now = [(decode_jpeg(data), decode_shrunk(data)) for data in encoded]
    monkeypatch.setattr(images, "_RGB", 0)
    for data, (whole, small) in zip(encoded, now, strict=True):
        assert np.array_equal(decode_jpeg(data), whole)
        assert np.array_equal(decode_shrunk(data), small)
    assert np.array_equal(now[3][0], image)
