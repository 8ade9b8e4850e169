"""The commands of critic, labels and experiments, on recorded episodes."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dexpie_ros import cli
from dexpie_ros.config import ConfigError, save_yaml
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.settings import best
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.labels import label_tags, read_labels
from dexpie_ros.evaluation.commands import add_critic, add_label
from dexpie_ros.evaluation.experiment_commands import EXPERIMENTS, add_experiment
from dexpie_ros.evaluation.experiments import jobs
from dexpie_ros.evaluation.experiments.collision import critic_settings, record
from dexpie_ros.evaluation.experiments.settings import (
    async_against_sync,
    ladder,
    staged_against_standard,
)
from dexpie_ros.simulation.lockstep import LockstepConfig, Task, run_all


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    groups = parser.add_subparsers()
    for add in (add_critic, add_label, add_experiment):
        add(groups)
    options = parser.parse_args(words)
    status: int = options.run(options)
    return status


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("episodes")
    rollouts = run_all(LockstepConfig(), [Task("demonstration", k) for k in range(3)], folder)
    assert [r.outcome for r in rollouts] == ["success"] * 3
    return folder


def test_train_label_relabel_report_video(
    bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    critic, few = str(tmp_path / "critic"), ("--set", "epochs=2", "--set", "crossfit=2")
    assert run("critic", "train", str(bags), "--output", critic, "--max-steps", "400", *few) == 0
    assert "from 3 episodes" in capsys.readouterr().out
    assert run("label", critic, str(bags), "--labels", "one") == 0
    again = ("--labels", "two", "--from-labels", "one", "--set", "scoring.kind=binary")
    assert run("label", critic, str(bags), *again) == 0
    (episode, *_) = sorted(p for p in bags.iterdir())
    assert {"one", "two"} <= set(label_tags(episode))
    assert set(read_labels(episode, "two").optimality.tolist()) <= {0.0, 1.0}
    assert read_labels(episode, "two").meta["critic"] == Critic.load(critic).hash
    capsys.readouterr()
    assert run("critic", "report", critic, str(bags), "--labels", "one") == 0
    text = capsys.readouterr().out
    assert "held out" in text and "demonstration" in text
    assert run("critic", "video", str(episode), "--labels", "one") == 0
    assert (episode / "value.mp4").stat().st_size > 1000


def test_l_is_by_default_the_longest_episode_there(
    bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = max(len(e) for e in Collection(bags).read())
    few = ("--set", "epochs=1", "--set", "crossfit=2")
    words = ("critic", "train", str(bags), *few, "--output")
    assert run(*words, str(tmp_path / "own")) == 0
    assert f"L = {longest} steps, the longest of these 3" in capsys.readouterr().out
    assert Critic.load(tmp_path / "own").settings.returns.max_steps == longest
    assert run(*words, str(tmp_path / "set"), "--set", "returns.max_steps=700") == 0
    assert "L =" not in capsys.readouterr().out
    assert Critic.load(tmp_path / "set").settings.returns.max_steps == 700


def test_labels_follow_the_critics_preset(bags: Path, tmp_path: Path) -> None:
    critic = str(tmp_path / "critic")
    few = ("--set", "epochs=1", "--set", "validation=0.34")
    words = ("critic", "train", str(bags), "--output", critic, "--max-steps", "400", *few)
    assert run(*words, "--preset", "paper") == 0
    assert Critic.load(critic).preset == "paper"
    assert run("label", critic, str(bags), "--tag", "own") == 0
    (episode, *_) = sorted(p for p in bags.iterdir())
    assert set(read_labels(episode, "own").optimality.tolist()) == {1.0}, "demonstrations: one"
    assert run("label", critic, str(bags), "--tag", "scored", "--preset", "best") == 0
    assert len(set(read_labels(episode, "scored").optimality.tolist())) > 1
    described = Path(critic) / "critic.json"
    described.write_text(described.read_text().replace('"preset": "paper"', '"preset": ""'))
    assert run("label", critic, str(bags), "--tag", "own") == 0
    assert len(set(read_labels(episode, "own").optimality.tolist())) > 1, "unknown: best"


def test_an_episode_hidden_from_the_critic_still_trains_an_actor(
    bags: Path, tmp_path: Path
) -> None:
    own = tmp_path / "episodes"
    shutil.copytree(bags, own)
    (hidden, *_) = sorted(p for p in own.iterdir())
    words = ["episodes", "annotate", hidden.name, "--root", str(own), "--exclude", "critic"]
    assert cli.main([*words, "--cause", "collision"]) == 0
    critic, few = str(tmp_path / "critic"), ("--set", "epochs=1", "--set", "crossfit=2")
    assert run("critic", "train", str(own), "--output", critic, "--max-steps", "400", *few) == 0
    assert hidden.name not in Critic.load(critic).inputs
    assert run("label", critic, str(own), "--tag", "best") == 0
    assert run("label", critic, str(own), "--tag", "two", "--from-tag", "best") == 0
    for tag in ("best", "two"):
        assert read_labels(hidden, tag).meta["critic"] == Critic.load(critic).hash
    actor = ["train", "actor", "--episodes", str(own), "--labels", "best", "--recipe", "dexpie"]
    assert cli.main([*actor, "--output", str(tmp_path / "a"), "--set", "loop.iterations=2"]) == 0
    card = (tmp_path / "a" / "policy" / "card.md").read_text()
    assert "demonstration: 3 episodes" in card


def test_an_unknown_setting_is_refused(bags: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean epochs"):
        run("critic", "train", str(bags), "--output", str(tmp_path / "c"), "--max-steps", "400",
            "--set", "epoch=2")  # fmt: skip
    assert not (tmp_path / "c").exists()
    with pytest.raises(ConfigError, match="trails"):
        run("experiment", "ladder", "--output", str(tmp_path / "x"), "--set", "trails=2")


def test_a_refused_experiment_leaves_the_page_of_the_other(tmp_path: Path) -> None:
    words = ("experiment", "ladder", "--tasks", "A", "--seeds", "1", "--output", str(tmp_path))
    save_yaml(ladder(tasks=["A"], seeds=1), tmp_path / "experiment.yaml")
    (tmp_path / "results.json").write_text('{"kept": 1}')
    with pytest.raises(ConfigError, match="another experiment"):
        run(*words, "--set", "mess=0.5")
    with pytest.raises(ConfigError, match="another experiment"):
        run(*words, "--set", "mess=0.5", "--report-only")
    assert (tmp_path / "results.json").read_text() == '{"kept": 1}'
    assert not (tmp_path / "report.html").exists()


def test_rounds_and_arms_by_command(tmp_path: Path) -> None:
    arms = 'arms={dexpie_n12: {recipe: dexpie, labels: best,\n  label: ["advantage.window=12"]}}'
    words = ("--tasks", "B", "--seeds", "1", "--rounds", "2", "--output", str(tmp_path))
    few = ("--set", "variants=[{arms: [bc, dexpie]}]", "--set", arms)
    assert run("experiment", "ladder", *words, *few, "--report-only") == 0
    text = (tmp_path / "report.html").read_text()
    assert "10 of 10 evaluations" in text  # in both regimes
    assert "B-retry/main/seed-000/round-2 dexpie_n12" in text
    again = json.loads((tmp_path / "results.json").read_text())["about"]["command"]
    assert shlex.split(again)[-3:] == [few[1], "--set", arms] and "--rounds 2" in again


def test_an_experiment_says_first_how_much_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin(*_: object) -> tuple[str, ...]:
        assert "72 units (12 seeds of A-terminal, A-retry," in capsys.readouterr().err
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run_experiment", begin)
    with pytest.raises(KeyboardInterrupt):
        run("experiment", "ladder", "--output", str(tmp_path))


def test_regimes_by_command(tmp_path: Path) -> None:
    words = ("experiment", "ladder", "--tasks", "A", "--seeds", "1", "--encoder", "state")
    assert run(*words, "--tasks", "bottle", "--report-only", "--output", str(tmp_path / "b")) == 0
    assert "--tasks A" in (tmp_path / "b" / "results.json").read_text()
    with pytest.raises(ConfigError, match=r"--tasks bowl: simulated are bottle \(A\)"):
        run(*words, "--tasks", "A,bowl", "--report-only")
    said = ("--regimes", "terminal", "--output", str(tmp_path), "--report-only")
    assert run(*words, *said) == 0
    begun = json.loads((tmp_path / "results.json").read_text())
    assert begun["missing"] and all(n.startswith("A-terminal/") for n in begun["missing"])
    assert "--regimes terminal" in begun["about"]["command"]
    with pytest.raises(ConfigError, match="regimes"):
        run(*words, "--regimes", "gentle", "--report-only", "--output", str(tmp_path))


def test_help_says_what_experiments_do_by_default() -> None:
    makers = {"ladder": ladder, "async": async_against_sync, "staged": staged_against_standard}
    for name, (_, tasks, regimes) in EXPERIMENTS.items():
        config = makers[name]()
        assert (",".join(config.tasks), ",".join(config.regimes)) == (tasks, regimes)
        assert (config.seeds, config.trials, config.rounds) == (12, 200, 1)


def test_a_file_of_settings_comes_before_the_words(tmp_path: Path) -> None:
    """config/knobs.yaml is the sweep that docs report; words on the command line have the last say."""
    knobs = Path(__file__).parents[1] / "config" / "knobs.yaml"
    words = ("--config", str(knobs), "--tasks", "A", "--set", "trials=2", "--report-only")
    assert run("experiment", "ladder", *words, "--output", str(tmp_path)) == 0
    begun = json.loads((tmp_path / "results.json").read_text())
    assert all(name.startswith("A-retry/main/seed-102") for name in begun["missing"])
    assert len(begun["missing"]) > 20 and "--config" in begun["about"]["command"]
    assert begun["about"]["first_start"] == 600_000_000
    assert "Development starts" in begun["about"]["development"]
    assert "Development starts" in (tmp_path / "report.html").read_text()
    with pytest.raises(ConfigError, match="experiment ladder: trials"):
        run("experiment", "ladder", *words, "--set", "trials=x", "--output", str(tmp_path))
    (tmp_path / "x.yaml").write_text("tirals: 3")
    with pytest.raises(ConfigError, match=r"x\.yaml.*trials"):
        run("experiment", "ladder", "--config", str(tmp_path / "x.yaml"), "--report-only")


def test_a_report_of_nothing_yet(tmp_path: Path) -> None:
    words = ("--tasks", "A", "--seeds", "1", "--trials", "2", "--output", str(tmp_path))
    assert run("experiment", "ladder", *words, "--report-only") == 0
    assert "16 of 16 evaluations have no result yet" in (tmp_path / "report.html").read_text()


def test_the_collision_experiment_goes_on_with_the_returns_of_its_published_figures() -> None:
    """It had two defaults for L, one of which nothing used; and it is about failures."""
    returns = critic_settings().returns
    assert returns == replace(best(400).returns, failures="learn")
    assert replace(critic_settings(), returns=best(400).returns) == best(400)


def test_the_collision_that_nothing_shows(tmp_path: Path) -> None:
    few = ("--episodes", "9", "--plate", "0.5", "--set", "epochs=2", "--set", "crossfit=2")
    assert run("experiment", "collision", "--output", str(tmp_path), *few) == 0
    found = json.loads((tmp_path / "collision.json").read_text())
    assert 0 < found["collisions"] < 9
    assert set(found["rise"]) == set(found["blame"])
    assert set(found["blame"]) == {"everything", "signal"}
    assert "excluded" in (tmp_path / "report.html").read_text()
    with pytest.raises(ConfigError, match="differs in plate"):
        run("experiment", "collision", "--output", str(tmp_path), "--plate", "0.6")
    assert [e.id for e in record(tmp_path, 2, 0.5)] == [
        "demonstration-900000000",
        "demonstration-900000001",
    ]


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(stat.parent.name))
    return found


def _until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_an_experiment_that_is_told_to_end_takes_its_workers_along(tmp_path):
    words = "experiment ladder --tasks A --seeds 1 --trials 1 --workers 1 --set regimes=[retry]"
    process = subprocess.Popen(
        [sys.executable, "-m", "dexpie_ros.cli", *words.split(), "--output", tmp_path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: (tmp_path / "A-retry/main/seed-000/log.txt").exists())
        workers = _children(process.pid)
        assert workers
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    finally:
        process.kill()
        process.wait()
