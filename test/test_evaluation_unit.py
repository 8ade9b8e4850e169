"""Units of an experiment, really run with tiny settings: every way to collect, and interruptions."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from policies import tiny_policy

from dexpie_ros import config as configs
from dexpie_ros.critic.critic import Critic
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.labels import label_tags, read_labels
from dexpie_ros.evaluation.experiments import unit as unit_module
from dexpie_ros.evaluation.experiments.gains import gains
from dexpie_ros.evaluation.experiments.page import write_page
from dexpie_ros.evaluation.experiments.results import load_found
from dexpie_ros.evaluation.experiments.settings import (
    DEPLOYMENTS,
    ROUND_STRIDE,
    async_against_sync,
    ladder,
    staged_against_standard,
)
from dexpie_ros.evaluation.experiments.unit import UnitRun
from dexpie_ros.policy.policy import Policy
from dexpie_ros.simulation.lockstep import LockstepConfig, failed_step

TINY = {
    "tasks": ["A"],
    "regimes": ["retry"],
    "seeds": 1,
    "trials": 1,
    "iterations": 3,
    "mess": 0.0,
    "demonstrations": 2,
    "trajectories": 2,
    "critic_epochs": 1,
}


def episodes(root: Path) -> list[Episode]:
    found = [p for p in root.rglob("episodes") if p.is_dir()]
    return sorted((e for p in found for e in Collection(p).read()), key=lambda e: e.id)


def ids(root: Path) -> list[str]:
    return [e.id for e in episodes(root)]


@pytest.mark.slow
def test_every_way_to_collect(tmp_path: Path) -> None:
    start = f"{DEPLOYMENTS:09d}"
    for make, name in ((async_against_sync, "async"), (staged_against_standard, "staged")):
        config = make(**TINY)
        said: list[str] = []
        for unit in config.units():
            run = UnitRun(config, unit, tmp_path / name, said.append)
            run.prepare()
            # the operator is told when it failed, which is declared 0.2 s and a tick later
            for e in episodes(run.folder):
                assert e.info.kind != "deployment" or failed_step(e.path) == len(e) - 6
            for arm in config.arms_of(unit):
                run.evaluate(arm)
        found = load_found(config, tmp_path / name)
        assert found.missing == () and len(found.results) == len(config.variants) * 3
        assert gains(config, found.results) == {}, "their figures are of tasks B and C"
        # the same BC is deployed, so it is made once; nothing but labels is of one variant alone
        assert (said.count("train bc"), said.count("2 demonstrations")) == (1, 1)
        one, *others = (tmp_path / name / u.folder for u in config.units())
        for other in others:
            for path in (*one.glob("episodes/demonstration-*/*.mcap"), one / "arms/bc/run.yaml"):
                assert (other / path.relative_to(one)).read_bytes() == path.read_bytes()
            assert not list(other.glob(".copying"))
    # an untrained policy fails: staged restores its first start, standard watches two starts
    for variant in ("async/A-retry/async", "async/A-retry/sync", "staged/A-retry/staged"):
        got = [i for i in ids(tmp_path / variant) if not i.startswith("demo")]
        assert got == [f"correction-{start}", f"deployment-{start}"], variant
    second = f"{DEPLOYMENTS + 1:09d}"
    got = [i for i in ids(tmp_path / "staged/A-retry/standard") if not i.startswith("demo")]
    assert got == [f"correction-{start}", f"correction-{second}"]
    driven = {
        name: [
            read_episode_file(e.path).human_steps
            for e in episodes(tmp_path / "staged/A-retry" / name)
            if e.info.kind != "demonstration"
        ]
        for name in ("staged", "standard", "standard_driven")
    }
    assert sum(driven["standard"]) > sum(driven["staged"]) > 0
    # the same episodes as always watched, until one reaches as much as staged drove
    so_far = np.cumsum(driven["standard"])
    n = int(np.searchsorted(so_far, sum(driven["staged"]))) + 1
    assert driven["standard_driven"] == driven["standard"][: min(n, 2)]
    # the same policy on the same start, but it stood still for every inference
    one, two = (
        next(e for e in episodes(tmp_path / "async/A-retry" / v) if e.info.kind == "deployment")
        for v in ("async", "sync")
    )
    assert one.info.seed == two.info.seed == DEPLOYMENTS
    n = min(len(one), len(two))
    assert not np.array_equal(one.command_tcp[:n], two.command_tcp[:n])


def test_an_arm_is_evaluated_at_its_own_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Met(Exception):
        pass

    def runner(lab: LockstepConfig, policy: Policy) -> None:
        raise Met(lab.inference.execution_horizon)

    monkeypatch.setattr(unit_module, "LockstepRunner", runner)
    config = ladder(**TINY, arms={"often": {"recipe": "hg_dagger", "execution_horizon": 10}})
    run = UnitRun(config, config.units()[0], tmp_path, lambda text: None)
    for arm, horizon in (("hg_dagger", "20"), ("often", "10")):
        tiny_policy().save(run.folder / "arms" / arm / "policy")
        with pytest.raises(Met, match=horizon):
            run.evaluate(arm)


@pytest.mark.slow
def test_a_second_round_is_collected_by_the_improved_policy(tmp_path: Path) -> None:
    arms = {"dexpie_one": {"recipe": "dexpie", "labels": "best", "label": ["scoring.alpha=2"]}}
    config = ladder(**TINY, rounds=2, variants=[{"arms": ["bc", "dexpie"]}], arms=arms)
    one, two = config.units()
    assert two.folder == f"{one.folder}/round-2"
    assert config.arms_of(one) == ("bc", "dexpie", "dexpie_one")
    assert config.arms_of(two) == ("dexpie", "dexpie_one"), "bc has nothing to learn from it"
    for unit in (one, two):
        run = UnitRun(config, unit, tmp_path, lambda text: None)
        run.prepare()
        for arm in config.arms_of(unit):
            run.evaluate(arm)
    first, later = (tmp_path / u.folder / "episodes" for u in (one, two))
    start = f"{DEPLOYMENTS + ROUND_STRIDE:09d}"
    new = {e.id: e.info for e in Collection(later).read()}
    assert set(new) == {f"deployment-{start}", f"correction-{start}"}
    assert {info.policy_id for info in new.values()} == {"dexpie-round-1"}
    old = {e.id for e in Collection(first).read()}
    assert len(old) == 4 and not old & set(new)
    # the second round learns from what succeeded of both, with labels of its own critic beside the
    # first one's
    critics = [Critic.load(tmp_path / u.folder / "critic-best") for u in (one, two)]
    won = [{e.id for e in Collection(f).read() if e.success} for f in (first, later)]
    assert set(critics[0].inputs) == won[0] and set(critics[1].inputs) == won[0] | won[1]
    episode = Collection(first).entries[0].path
    tag = config.method("dexpie_one").tag
    assert tag.startswith("best-") and tag != "best"
    for critic, ending in zip(critics, ("", "-round-2"), strict=True):
        for name in ("best", tag):
            assert read_labels(episode, name + ending).meta["critic"] == critic.hash
    scoring = read_labels(episode, tag).meta["settings"]["scoring"]
    assert scoring["alpha"] == 2.0
    text = write_page(config, tmp_path, "x", "y").read_text()
    plain = json.loads((tmp_path / "results.json").read_text())
    assert plain["missing"] == [] and "A-retry, round 2" in text
    assert plain["ladder.A-retry.round-2.dexpie"]["n"] == 1
    assert "round_2_gain_dexpie_bc" in plain and "round_2_gain_dexpie_round_1" in plain
    pairs = {(d["first"], d["second"]) for d in plain["differences"]}
    assert ("dexpie, round 2", "dexpie") in pairs and ("dexpie, round 2", "bc") in pairs
    assert {s["unit"] for s in plain["sources"]} == {one.folder, two.folder}


@pytest.mark.slow
def test_a_unit_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    config = ladder(**TINY, variants=[{"arms": ["bc", "dexpie"]}])
    (unit,) = config.units()
    configs.save_yaml(config, tmp_path / "experiment.yaml")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dexpie_ros import config as configs\n"
        "from dexpie_ros.evaluation.experiments.settings import ExperimentConfig\n"
        "from dexpie_ros.evaluation.experiments.unit import UnitRun\n"
        "root = Path(sys.argv[1])\n"
        "config = configs.load(ExperimentConfig, root / 'experiment.yaml')\n"
        "UnitRun(config, config.units()[0], root, print).prepare()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.DEVNULL)
    folder = tmp_path / unit.folder
    kept, half = (folder / "episodes" / f"demonstration-{100_000 + k:09d}" for k in range(2))
    try:
        end = time.monotonic() + 240.0
        while not half.exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    before = contents(kept)
    UnitRun(config, unit, tmp_path, lambda text: None).prepare()
    after = contents(kept)
    assert before and {name: after[name] for name in before} == before, "it was made anew"
    start = f"{DEPLOYMENTS:09d}"
    wanted = [f"correction-{start}", kept.name, half.name, f"deployment-{start}"]
    assert ids(folder) == wanted
    assert all(not e.partial and e.outcome != "aborted" for e in episodes(folder))
    assert all(e.success for e in episodes(folder) if e.info.kind == "demonstration")
    won = {e.id for e in episodes(folder) if e.success}
    assert set(Critic.load(folder / "critic-best").inputs) == won < set(wanted)
    assert all(label_tags(folder / "episodes" / name) == ["best"] for name in wanted)
    # what an uninterrupted unit gives, bit for bit
    straight = tmp_path / "straight"
    UnitRun(config, unit, straight, lambda text: None).prepare()
    for a, b in zip(episodes(folder), episodes(straight / unit.folder), strict=True):
        same(a, b)
    weights = [
        next((root / unit.folder / "arms/bc/policy").glob("*.safetensors")).read_bytes()
        for root in (tmp_path, straight)
    ]
    assert weights[0] == weights[1]
    # once more: nothing is made again
    whole = {p: contents(folder / "episodes" / p) for p in wanted}
    UnitRun(config, unit, tmp_path, lambda text: pytest.fail(text)).prepare()
    assert {p: contents(folder / "episodes" / p) for p in wanted} == whole
    # nor does it matter where in the deployment the break was, or that labels went with a bag
    shutil.rmtree(folder / "episodes" / wanted[0])
    UnitRun(config, unit, tmp_path, lambda text: None).prepare()
    again, first = (
        read_labels(r / "episodes" / wanted[0], "best") for r in (folder, straight / unit.folder)
    )
    assert np.array_equal(again.optimality, first.optimality)
    for a, b in zip(episodes(folder), episodes(straight / unit.folder), strict=True):
        same(a, b)


def same(a: Episode, b: Episode) -> None:
    assert (a.id, a.info.outcome, a.info.seed) == (b.id, b.info.outcome, b.info.seed)
    assert np.array_equal(a.time_ns - a.time_ns[0], b.time_ns - b.time_ns[0])
    for name in ("tcp", "joints", "hand", "hand_force", "command_tcp", "command_hand",
                 "source", "mode", "objects", "contact"):  # fmt: skip
        assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True), (a.id, name)


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}
