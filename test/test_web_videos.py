"""Value-overlay videos that the page makes in the background."""

import json
import threading
import time
from dataclasses import replace
from urllib.parse import quote

import cv2
import factories
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")

from web_pages import ask, served

from dexpie_ros.critic.label import Labels
from dexpie_ros.episodes.annotations import annotate
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.labels import write_labels
from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.evaluation import overlay
from dexpie_ros.web import videos as module
from dexpie_ros.web.library import Library, UnknownEpisodeError
from dexpie_ros.web.videos import Videos

STEPS = 12


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "collection"
    path = factories.write_episode(root / "a", factories.Recipe(steps=STEPS, images=True))
    ramp = [k / STEPS for k in range(STEPS)]
    write_labels(path, "v1", Labels(ramp, ramp, ramp, {"critic": "abc"}))
    write_labels(path, "short", Labels([0.0], [0.0], [0.0], {"critic": "abc"}))
    return root


@pytest.fixture
def videos(root):
    made = Videos(Library(root))
    yield made
    made.close()


def until(true, what):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def test_a_video_is_made_and_fetched(root):
    with served(root) as where:

        def video(body, episode="a"):
            path = f"{where}/api/video?episode={quote(episode)}"
            status, _, answer = ask(path, data=json.dumps(body).encode())
            return status, json.loads(answer)

        status, job = video({"tag": "v1"})
        assert status == 200 and job["state"] in ("waiting", "running", "done")
        said = {}

        def done():
            said.update(json.loads(ask(f"{where}/api/video?id={job['id']}")[2]))
            return said["state"] not in ("waiting", "running")

        until(done, "the video")
        assert (said["state"], said["progress"], said["error"]) == ("done", 1.0, "")
        status, headers, data = ask(f"{where}/video?id={job['id']}")
        assert status == 200 and headers["content-type"] == "video/mp4"
        assert headers["content-disposition"] == 'attachment; filename="a_v1.mp4"'
        assert len(data) == said["bytes"] > 1000
        file = root.parent / "fetched.mp4"
        file.write_bytes(data)
        pictures = cv2.VideoCapture(str(file))
        assert pictures.get(cv2.CAP_PROP_FRAME_COUNT) == STEPS
        for wrong, error in (
            ({"tag": "short"}, f"1 labels for {STEPS} steps"),
            ({"tag": "../v1"}, "label tag"),
            ({"tag": "v2"}, "no such labels"),
            ({}, "needs the `tag`"),
            ({"tag": 3}, "needs the `tag`"),
            ({"cancel": "99"}, "no longer there"),
        ):
            status, answer = video(wrong)
            assert status == 422 and error in answer["error"]
        assert video({"tag": "v1"}, "../a")[0] == 404
        assert ask(f"{where}/api/video?id=99")[0] == 422
        assert ask(f"{where}/video?id=99")[0] == 422
        assert ask(f"{where}/video?id={job['id']}", token="wrong")[0] == 403


def test_the_same_is_made_once_and_anew_when_something_changed(root, videos):
    first = videos.want("a", "v1")
    until(lambda: first.over, "first")
    assert videos.want("a", "v1") is first
    annotate(root / "a", outcome="failure")
    second = videos.want("a", "v1")
    assert second is not first
    until(lambda: second.over, "second")
    assert first.file.read_bytes() != second.file.read_bytes(), "the outcome is said at its end"


def test_the_video_shows_the_spread_too(root, tmp_path):
    episode = read_episode(root / "a")
    ramp = np.linspace(0.0, 1.0, STEPS, dtype=np.float32)
    plain = Labels(ramp, ramp, ramp, {"critic": "abc"})
    wide = replace(plain, value_low=np.zeros_like(ramp), value_high=np.ones_like(ramp))
    seen = []
    for labels in (plain, wide):
        file = overlay.write_overlay(tmp_path / "v.mp4", episode, labels)
        _, frame = cv2.VideoCapture(str(file)).read()
        seen.append(frame[-150:].astype(int))
    lighter = (seen[1] - seen[0]).mean(axis=2)
    # everywhere between the lowest and the highest value, nowhere above
    assert lighter[50:110, 40:-40].mean() > 20 and abs(lighter[:28].mean()) < 5


@pytest.fixture
def slow(monkeypatch):
    """Videos that write one frame and wait."""
    go = threading.Event()

    def write(file, episode, labels, progress):
        file.write_bytes(b"x")
        progress(1, 2)
        go.wait(30)
        progress(2, 2)

    monkeypatch.setattr(overlay, "write_overlay", write)
    yield go
    go.set()


def test_a_cancelled_video_ends_and_the_next_one_begins(root, videos, slow):
    factories.write_episode(root / "b", factories.Recipe(steps=STEPS))
    ramp = [0.0] * STEPS
    write_labels(root / "b", "v1", Labels(ramp, ramp, ramp, {"critic": "abc"}))
    running, waiting = videos.want("a", "v1"), videos.want("b", "v1")
    until(lambda: running.progress == 0.5, "half of it")
    assert running.plain()["state"] == "running" and waiting.state == "waiting"
    running.stop.set()
    slow.set()
    until(lambda: waiting.over, "the next one")
    assert (running.state, waiting.state) == ("cancelled", "done")
    assert videos.want("a", "v1") is not running, "wanted again after all"


def test_what_goes_wrong_is_said(videos, monkeypatch, caplog):
    def bad(file, episode, labels, progress):
        raise error

    monkeypatch.setattr(overlay, "write_overlay", bad)
    error = EpisodeError("picture 7 is broken")
    video = videos.want("a", "v1")
    until(lambda: video.over, "failure")
    assert video.plain()["state"] == "failed" and video.error == "picture 7 is broken"
    error = ZeroDivisionError("a bug")
    video = videos.want("a", "v1")
    until(lambda: video.over, "failure")
    assert "dexpie web" in video.error
    until(lambda: "a bug" in caplog.text, "the log has it")
    with pytest.raises(UnknownEpisodeError):
        videos.want("b", "v1")


def test_few_are_kept_and_nothing_stays_behind(videos, slow, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 1)
    monkeypatch.setattr(module, "WAITING", 2)
    slow.set()
    made = []
    for _ in range(3):
        video = videos.want("a", "v1")
        until(lambda video=video: video.over, "done")
        video.key = ("changed",)
        made.append(video)
    assert [video.file.exists() for video in made] == [False, True, True]  # one, and the newest
    slow.clear()
    running = videos.want("a", "v1")
    until(lambda: running.progress == 0.5, "it has read what it shows")
    running.key = ("another",)
    videos.want("a", "v1").key = ("a third",)
    with pytest.raises(EpisodeError, match="being made already"):
        videos.want("a", "v1")
    folder = made[-1].file.parent
    assert folder.is_dir()
    slow.set()
    videos.close()
    assert not folder.exists()
