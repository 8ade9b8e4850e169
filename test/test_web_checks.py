"""Quality that takes a look into the bags, and quotas of a session's plan."""

import argparse
import json
import shutil
import threading
import time

import factories
import pytest

pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")

from web_pages import ask, served

from dexpie_ros.config import ConfigError, save_yaml
from dexpie_ros.control.session import SessionConfig, StageQuota
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.web import checks as module
from dexpie_ros.web.checks import Checks
from dexpie_ros.web.commands import add_parser
from dexpie_ros.web.library import Library
from dexpie_ros.web.quotas import quotas
from dexpie_ros.web.rows import quality

SLOW_ARM = factories.Recipe(steps=24, state_rate_hz=8.0)


def known(checks):
    end = time.monotonic() + 60
    while (found := checks.look())["left"]:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "collection"
    factories.write_episode(root / "good", factories.Recipe(steps=24))
    factories.write_episode(root / "slow", SLOW_ARM)
    return root


@pytest.fixture
def checks(root):
    made = Checks(Library(root))
    yield made
    made.close()


def test_steps_out_of_tolerance_are_counted(root, checks):
    assert checks.look() == {"of": 2, "left": 2, "flags": {}}, "the list does not wait"
    found = known(checks)
    assert found["of"] == 2 and set(found["flags"]) == {"slow"}
    word, story = found["flags"]["slow"]
    flags = read_episode(root / "slow").flags
    assert 0 < flags.sum() < len(flags)
    assert word == "misaligned" and story.startswith(f"{flags.sum()} of 24 steps")
    assert "15 ms" in story


def test_only_what_changed_is_looked_at_again(root, checks, monkeypatch):
    known(checks)
    asked = []
    look = module.misaligned
    monkeypatch.setattr(module, "misaligned", lambda *a: asked.append(a[1]) or look(*a))
    assert known(checks)["flags"].keys() == {"slow"} and asked == []
    factories.write_episode(root / "again", SLOW_ARM)
    (bag,) = (root / "slow").glob("*.mcap")
    (good,) = (root / "good").glob("*.mcap")
    bag.write_bytes(good.read_bytes())
    monkeypatch.setattr("dexpie_ros.web.library.FRESH_S", -1.0)
    assert known(checks)["flags"].keys() == {"again"}
    assert sorted(asked) == ["again", "slow"]


def test_a_broken_bag_ends_no_check(root, checks):
    (bag,) = (root / "good").glob("*.mcap")
    bag.write_bytes(b"\0" * 100)
    assert set(known(checks)["flags"]) == {"slow"}
    checks.close()
    bag.write_bytes(b"\1" * 100)
    assert checks.look()["left"] == 1, "closed: nothing works any more"
    time.sleep(0.05)
    assert checks.look()["left"] == 1


def test_a_bag_that_nobody_foresaw_is_tried_once(root, checks, monkeypatch):
    tried = []

    def fails(library, name):
        tried.append(name)
        raise PermissionError("not yours") if name == "good" else OverflowError("a bug")

    monkeypatch.setattr(module, "misaligned", fails)
    with monkeypatch.context() as quiet:
        quiet.setattr(threading, "excepthook", lambda args: None)
        assert known(checks)["flags"] == {}
        time.sleep(0.05)
        assert checks.look()["left"] == 0 and sorted(tried) == ["good", "slow"]


def test_nothing_is_told_done_before_it_is(root, checks, monkeypatch):
    begun, go, look = threading.Event(), threading.Event(), module.misaligned

    def slow(library, name):
        if name == "slow":
            begun.set()
            go.wait(30)
        return look(library, name)

    monkeypatch.setattr(module, "misaligned", slow)
    checks.look()
    assert begun.wait(30)
    found = checks.look()
    go.set()
    assert found["left"] >= 1 and found["flags"] == {}
    assert set(known(checks)["flags"]) == {"slow"}


def test_the_page_may_ask(root):
    with served(root) as where:
        end = time.monotonic() + 60
        while (found := json.loads(ask(f"{where}/api/checks")[2]))["left"]:
            assert time.monotonic() < end
        assert found["flags"]["slow"][0] == "misaligned"


def test_what_the_recorder_says_of_its_end_is_a_remark(tmp_path):
    path = factories.write_episode(tmp_path / "e", factories.Recipe(steps=3))
    (entry,) = Collection(path)
    entry.content.statistics.update(silent=[], ended_early="the disk is full", queue_dropped=7)
    assert quality(entry.content) == [
        ["cut short", "the recording ended early: the disk is full"],
        ["dropped", "messages lost while recording: before the disk 7"],
    ]
    entry.content.statistics.update(ended_early=3, queue_dropped="x")
    assert quality(entry.content) == []


PLAN = SessionConfig(
    (StageQuota("reach", episodes=3, pairs=2), StageQuota("place", successes=4)),
)


def record(folder, name, stage, kind, outcome, pair="", **more):
    info = {"stage": stage, "kind": kind, "pair_id": pair, "outcome": outcome}
    factories.write_episode(folder / name, factories.Recipe(steps=3), **info, **more)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """For :data:`PLAN`, of one task."""
    folder = tmp_path_factory.mktemp("recorded")
    record(folder, "a", "reach", "deployment", "failure", "p1")
    record(folder, "b", "reach", "correction", "success", "p1")
    record(folder, "c", "reach", "deployment", "success", "p2")
    record(folder, "d", "reach", "evaluation", "success")
    record(folder, "e", "reach", "deployment", "aborted")
    record(folder, "f", "elsewhere", "deployment", "success")
    return folder


def test_quotas_of_one_task(recorded):
    reach, place = quotas(PLAN, Collection(recorded))
    assert reach == {
        "task": "bottle", "stage": "reach", "have": {"episodes": 3, "pairs": 1},
        "wanted": {"episodes": 3, "pairs": 2}, "share": 0.75, "complete": False,
    }  # fmt: skip
    assert place["have"] == {"successes": 0} and place["share"] == 0.0
    assert [row["task"] for row in quotas(PLAN, [])] == ["", ""]


def test_quotas_count_as_the_session_does(recorded, tmp_path):
    session = pytest.importorskip("dexpie_ros.nodes.session", reason="needs ROS 2")
    folder = shutil.copytree(recorded, tmp_path / "episodes")
    # another task in the same place: neither the page nor a session counts it to the first
    record(folder, "g", "reach", "deployment", "failure", "p1", task="drawer")
    record(folder, "h", "place", "deployment", "success", task="drawer")
    record(folder, "i", "place", "deployment", "success", task="")  # of no task: counts for each
    counted = quotas(PLAN, Collection(folder))
    assert [(row["task"], row["stage"], *row["have"].values()) for row in counted] == [
        ("bottle", "reach", 3, 1), ("bottle", "place", 1),
        ("drawer", "reach", 1, 0), ("drawer", "place", 2),
    ]  # fmt: skip
    plan = tmp_path / "plan.yaml"
    save_yaml(PLAN, plan)
    for task in ("bottle", "drawer"):
        wanted = session.SessionParameters(task=task, directory=str(folder), plan=str(plan))
        rows = [row for row in counted if row["task"] == task]
        for stage, row in zip(session.resumed(wanted).progress(), rows, strict=True):
            assert {name: stage.have[name] for name in row["have"]} == row["have"]


def test_a_wrong_plan_is_refused_in_words(tmp_path):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    plan = tmp_path / "plan.yaml"
    plan.write_text("stages: [{name: reach, episods: 3}]")
    options = parser.parse_args(["web", str(tmp_path), "--plan", str(plan)])
    with pytest.raises(ConfigError, match="episods"):
        options.run(options)
