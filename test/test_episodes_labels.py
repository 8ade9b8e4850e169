"""Labels beside an episode."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save

from dexpie_ros.episodes import EpisodeError, Labels, read_labels, write_labels
from dexpie_ros.episodes.labels import label_tags


def labels(steps=7, **meta):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, steps)).astype(np.float32)
    return Labels(*rows, meta={"critic": "abc", "alpha": 5.0, **meta})


def test_round_trip(tmp_path):
    written = labels(note={"q": [0.6, 0.8]})
    path = write_labels(tmp_path, "iteration-1", written)
    assert path == tmp_path / "labels/iteration-1.safetensors"
    again = read_labels(tmp_path, "iteration-1", critic="abc", steps=7)
    for name in ("value", "advantage", "optimality"):
        assert np.array_equal(getattr(again, name), getattr(written, name))
        assert getattr(again, name).dtype == np.float32
    assert again.meta == written.meta and len(again) == 7
    write_labels(tmp_path, "b", labels(3))
    assert label_tags(tmp_path) == ["b", "iteration-1"]
    assert label_tags(tmp_path / "nowhere") == []


def test_the_spread_is_kept_where_it_is_known(tmp_path):
    plain = labels(3)
    spread = dataclasses.replace(
        plain, value_low=plain.value - 0.25, value_high=plain.value + np.float64(0.5)
    )
    write_labels(tmp_path, "new", spread)
    again = read_labels(tmp_path, "new")
    assert np.array_equal(again.value_low, plain.value - np.float32(0.25))
    assert np.array_equal(again.value_high, plain.value + np.float32(0.5))
    assert again.value_high.dtype == np.float32
    # what was written before there was a spread
    rows = {name: getattr(plain, name) for name in ("value", "advantage", "optimality")}
    old = save(rows, metadata={"labels": json.dumps(plain.meta)})
    (tmp_path / "labels/old.safetensors").write_bytes(old)
    before = read_labels(tmp_path, "old", critic="abc", steps=3)
    assert before.value_low is None and before.value_high is None
    assert np.array_equal(before.value, plain.value)
    # half a spread, of another length, or with a hole is none
    with pytest.raises(EpisodeError, match="belong together"):
        dataclasses.replace(plain, value_low=plain.value)
    with pytest.raises(EpisodeError, match="value_high has shape"):
        dataclasses.replace(plain, value_low=plain.value, value_high=plain.value[:2])
    spread.value_low[1] = np.nan
    with pytest.raises(EpisodeError, match="value_low holds"):
        write_labels(tmp_path, "hole", spread)
    half = save({**rows, "value_low": plain.value}, metadata={"labels": json.dumps(plain.meta)})
    (tmp_path / "labels/half.safetensors").write_bytes(half)
    with pytest.raises(EpisodeError, match="belong together"):
        read_labels(tmp_path, "half")


def test_labels_of_another_critic_or_length_are_refused(tmp_path):
    write_labels(tmp_path, "a", labels())
    with pytest.raises(EpisodeError, match="made by critic abc, wanted xyz"):
        read_labels(tmp_path, "a", critic="xyz")
    with pytest.raises(EpisodeError, match="7 labels for 8 steps"):
        read_labels(tmp_path, "a", steps=8)
    with pytest.raises(EpisodeError, match=r"no such labels \(there are: a\)"):
        read_labels(tmp_path, "b")


@pytest.mark.parametrize("tag", ["", "../a", "a/b", ".hidden", "a b"])
def test_tags_are_plain_names(tmp_path, tag):
    with pytest.raises(EpisodeError, match="label tag"):
        write_labels(tmp_path, tag, labels())


def test_what_must_not_be_written(tmp_path):
    with pytest.raises(EpisodeError, match="hash of the critic"):
        write_labels(tmp_path, "a", Labels(np.zeros(2), np.zeros(2), np.zeros(2)))
    bad = labels()
    bad.value[3] = np.nan
    with pytest.raises(EpisodeError, match="value holds"):
        write_labels(tmp_path, "a", bad)
    with pytest.raises(EpisodeError, match="advantage has shape"):
        Labels(np.zeros(3), np.zeros(2), np.zeros(3))
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 50, b"\xff" * 8 + b"{}"])
def test_damaged_files_are_named(tmp_path, content):
    path = write_labels(tmp_path, "a", labels())
    path.write_bytes(content)
    with pytest.raises(EpisodeError, match=r"a\.safetensors: cannot be read"):
        read_labels(tmp_path, "a")
