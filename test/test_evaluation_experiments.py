"""Experiments: seeds, resuming, statistics over seeds, and a tiny ladder from end to end."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
from pathlib import Path

import pytest

from dexpie_ros.config import ConfigError
from dexpie_ros.evaluation.experiments import settings as experiments
from dexpie_ros.evaluation.experiments.gains import mean_gain, to_plain
from dexpie_ros.evaluation.experiments.jobs import (
    PREPARE,
    Job,
    Status,
    _finished,
    _Queue,
    all_jobs,
    run_experiment,
)
from dexpie_ros.evaluation.experiments.page import write_page
from dexpie_ros.evaluation.experiments.results import (
    difference,
    load_found,
    over_seeds,
    select,
)
from dexpie_ros.evaluation.experiments.settings import (
    ARMS,
    DEMONSTRATIONS,
    DEPLOYMENTS,
    DEVELOPMENT,
    EVALUATIONS,
    SEED_STRIDE,
    ExperimentConfig,
    laboratory,
    ladder,
)
from dexpie_ros.evaluation.experiments.unit import load_rollouts, save_rollouts
from dexpie_ros.simulation.lockstep import Rollout


def test_seeds_of_different_purposes_and_training_seeds_never_meet() -> None:
    config = ladder()
    most = max(experiments.TASKS[key].trajectories for key in experiments.TASKS)
    demos = max(experiments.TASKS[key].demonstrations for key in experiments.TASKS) * 4
    assert max(most, demos) <= SEED_STRIDE
    # a thousand training seeds fit between the purposes
    assert DEMONSTRATIONS + 1000 * SEED_STRIDE < DEPLOYMENTS
    assert DEPLOYMENTS + 1000 * SEED_STRIDE < EVALUATIONS
    assert len({u.folder for u in config.units()}) == len(config.units())


def test_the_ladder_has_every_recipe_and_the_papers_literal_ones() -> None:
    assert {arm.recipe for arm in ARMS.values()} == {
        "bc", "hg_dagger", "hg_fast", "dexhil", "recap", "dexpie",
    }  # fmt: skip
    assert ARMS["dexpie_paper"].labels == "paper"
    config = ladder()
    assert config.variants[0].arms == tuple(ARMS)
    assert [u.cell for u in config.units()[:6]] == [
        "A-terminal", "A-retry", "B-terminal", "B-retry", "C-terminal", "C-retry",
    ]  # fmt: skip
    assert len(config.units()) == 6 * 12
    for unit in config.units()[:6]:
        cell = laboratory(config, unit, "evaluation").cell
        assert getattr(cell, cell.task).regime == unit.regime
    assert {u.cell for u in ladder(regimes=["retry"]).units()} == {"A-retry", "B-retry", "C-retry"}
    with pytest.raises(ConfigError, match="regimes: choose"):
        ladder(regimes=[])
    with pytest.raises(ConfigError, match="choose, each once"):
        ladder(variants=[{"arms": ["bc", "sarsa"]}])


def test_collection_differs_as_the_ablation_says_and_evaluation_does_not() -> None:
    config = experiments.async_against_sync(seeds=1)
    one, two = config.units()
    assert (one.variant, two.variant) == ("async", "sync")
    assert laboratory(config, one, "collection").inference.mode == "async"
    assert laboratory(config, two, "collection").inference.mode == "sync"
    assert laboratory(config, two, "collection").inference_delay_steps == 4
    assert laboratory(config, one, "evaluation") == laboratory(config, two, "evaluation")
    staged = experiments.staged_against_standard(seeds=1)
    assert [v.collection for v in staged.variants] == ["staged", "standard", "standard"]
    assert [v.driven_like for v in staged.variants] == ["", "", "staged"]
    assert {u.task for u in staged.units()} == {"C"}


def rollout(seed: int, success: bool, step: int = 100) -> Rollout:
    return Rollout(
        seed, "evaluation", "success" if success else "failure", "" if success else "timeout",
        step + 5, step if success else None, 0, 0, 0, True, (1.0, 2.0),
    )  # fmt: skip


def fake(root: Path, config: ExperimentConfig, successes: dict[str, list[int]]) -> None:
    """Results of arms: how many of the trials succeed, by seed."""
    for unit in config.units():
        for arm, counts in successes.items():
            done = [rollout(EVALUATIONS + k, k < counts[unit.seed]) for k in range(config.trials)]
            save_rollouts(root / unit.folder / "evaluation" / f"{arm}.json", arm, done)


TINY = ladder(tasks=["A"], regimes=["retry"], seeds=4, trials=10)


def test_rollouts_survive_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "bc.json"
    save_rollouts(path, "abc", [rollout(1, True), rollout(2, False)])
    again = load_rollouts(path)
    assert again["policy_id"] == "abc"
    assert again["rollouts"] == [rollout(1, True), rollout(2, False)]
    path.write_text(json.dumps({"rollouts": [{"seed": 1}]}))
    with pytest.raises(ConfigError, match="delete it to evaluate again"):
        load_rollouts(path)


def test_differences_are_over_seeds(tmp_path: Path) -> None:
    fake(tmp_path, TINY, {"bc": [4, 5, 6, 5], "dexpie": [8, 9, 6, 7]})
    results = load_found(TINY, tmp_path).results
    bc, dexpie = select(results, "bc")["A-retry"], select(results, "dexpie")["A-retry"]
    got = difference(dexpie, bc)
    assert got.success_by_seed == pytest.approx((0.4, 0.4, 0.0, 0.2))
    assert got.success.value == pytest.approx(0.25)
    # 0.25 -+ 3.182 x 0.1915 / 2
    assert (got.success.low, got.success.high) == pytest.approx((-0.0546, 0.5546), abs=1e-4)
    assert got.seeds_ahead == (3, 0) and got.sign_p == pytest.approx(0.25)
    assert [(m.better, m.worse) for m in got.within] == [(4, 0), (4, 0), (0, 0), (2, 0)]
    # 4 s to success, 8.7 s where there is none
    assert bc.by_seed()[0].restricted_mean_s.value == pytest.approx(0.4 * 4.0 + 0.6 * 8.7)
    gain = mean_gain(select(results, "dexpie"), select(results, "bc"))
    assert gain is not None and gain.success.value == pytest.approx(0.25)


def test_a_gain_weighs_tasks_equally_and_needs_common_seeds(tmp_path: Path) -> None:
    config = ladder(tasks=["A", "B"], regimes=["retry"], seeds=2, trials=10)
    for unit in config.units():
        better = 8 if unit.task == "A" else 6
        for arm, count in (("bc", 4), ("dexpie", better)):
            if (unit.task, unit.seed) != ("B", 1):
                done = [rollout(EVALUATIONS + k, k < count) for k in range(10)]
                save_rollouts(tmp_path / unit.folder / "evaluation" / f"{arm}.json", arm, done)
    results = load_found(config, tmp_path).results
    gain = mean_gain(select(results, "dexpie"), select(results, "bc"))
    # seed 1 of B is missing: only seed 0 counts, (40 + 20) / 2 points
    assert gain is not None and gain.success.value == pytest.approx(0.3)
    assert math.isnan(gain.success.low)


def test_too_few_seeds_have_no_interval() -> None:
    assert math.isnan(over_seeds([0.4, 0.5]).low) and over_seeds([0.4, 0.5]).value == 0.45
    assert over_seeds([0.4, 0.5, 0.6]).low < 0.5
    assert math.isnan(over_seeds([]).value)
    # no interval of a share leaves what a share can be
    assert (
        over_seeds([0.2, 0.9, 0.9], (0.0, 1.0)).high == 1.0 and over_seeds([0.2, 0.9, 0.9]).high > 1
    )


def test_results_and_report_are_derived_from_rollouts(tmp_path: Path) -> None:
    fake(tmp_path, TINY, {"bc": [4, 5, 6, 5], "hg_fast": [7, 7, 7, 7], "dexpie": [8, 9, 6, 7]})
    plain = to_plain(TINY, load_found(TINY, tmp_path).results)
    assert plain["ladder.A-retry.bc"]["success"] == pytest.approx(0.5)
    assert plain["ladder.A-retry.bc"]["n"] == 40
    assert plain["ladder.A-retry.dexpie"]["by_seed"] == [0.8, 0.9, 0.6, 0.7]
    assert plain["gain_dexpie_bc"]["value"] == pytest.approx(0.25)
    report = write_page(TINY, tmp_path, "dexpie experiment ladder", "2026-01-02").read_text()
    for text in ("A-retry", "gain_dexpie_bc", "dexpie − bc", "3 : 0", "timeout", "2026-01-02"):
        assert text in report
    json.loads((tmp_path / "results.json").read_text())


def test_arms_wait_for_their_unit_and_are_dropped_with_it() -> None:
    one, two = TINY.units()[:2]
    queue = _Queue([Job(one, PREPARE), Job(one, "bc"), Job(two, PREPARE), Job(two, "bc")])
    first, second = queue.take(), queue.take()
    assert first == Job(one, PREPARE) and second == Job(two, PREPARE)
    assert queue.take() is None
    queue.done.add(Job(one, PREPARE))
    assert queue.take() == Job(one, "bc")
    queue.drop(Job(two, PREPARE))
    assert queue.waiting == []


def test_a_folder_holds_one_experiment(tmp_path: Path) -> None:
    none = dataclasses.replace(TINY, seeds=1, trials=1)
    (tmp_path / "experiment.yaml").write_text("name: other\n")
    with pytest.raises(ConfigError, match="another experiment"):
        run_experiment(none, tmp_path)


def test_two_runs_are_not_at_work_in_one_folder(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as left:  # as a job has it that outlived its run
        fcntl.flock(left, fcntl.LOCK_SH)
        with pytest.raises(ConfigError, match="another run is at work"):
            run_experiment(TINY, tmp_path)
    assert not (tmp_path / "experiment.yaml").exists()
    (tmp_path / "experiment.yaml").write_text("name: other\n")
    with pytest.raises(ConfigError, match="another experiment"):  # the lock went with its holder
        run_experiment(TINY, tmp_path)


@pytest.mark.slow
def test_a_tiny_ladder_from_end_to_end(tmp_path: Path) -> None:
    config = ladder(
        tasks=["A"], regimes=["retry"], seeds=1, trials=1, iterations=3, mess=0.0,
        demonstrations=2, trajectories=2, critic_epochs=1, first_start=DEVELOPMENT,
        arms={"warm": {"recipe": "hg_dagger", "warm_start": True, "execution_horizon": 12}},
    )  # fmt: skip
    seen: list[Status] = []
    assert run_experiment(config, tmp_path, workers=2, progress=seen.append) == ()
    assert seen[-1].done == seen[-1].total == 1 + 2 + 9  # episodes, two sets of labels, arms
    results = load_found(config, tmp_path).results
    assert {r.arm for r in results} == {*ARMS, "warm"}
    assert {t.start for r in results for trials in r.trials for t in trials} == {str(DEVELOPMENT)}
    page = write_page(config, tmp_path, "x", "y").read_text()
    assert "Critics" in page and "none of the experiment" in page
    (best, paper) = json.loads((tmp_path / "results.json").read_text())["critics"]
    assert (best["labels"], paper["labels"]) == ("best", "paper")
    assert "demonstration" in best["optimal"] and "human" in best["optimal"]
    # a second call finds everything, and a removed policy is noticed
    log = tmp_path / config.units()[0].folder / "log.txt"
    before = log.read_text()
    assert run_experiment(config, tmp_path) == ()
    assert log.read_text() == before
    policy = tmp_path / config.units()[0].folder / "arms" / "dexpie" / "policy" / "config.yaml"
    assert _finished(config, all_jobs(config), tmp_path) == set(all_jobs(config))
    policy.unlink()
    left = set(all_jobs(config)) - _finished(config, all_jobs(config), tmp_path)
    assert {job.arm for job in left} == {PREPARE, "labels best", "labels paper", "dexpie"}


def test_vision_experiment_goes_all_the_way_and_keeps_what_is_there(tmp_path):
    from dexpie_ros.evaluation.experiments.vision import VisionConfig, run_vision

    settings = VisionConfig(
        demonstrations=1, trials=1, limit_s=12.0, image_size=32, channels=(16, 32), iterations=2,
        plain_iterations=2, workers=1,
    )  # fmt: skip
    said = []
    content = run_vision(settings, tmp_path, said.append)
    assert content["windows"] > 50 and content["demonstrations"] == 1
    for name in ("vision", "objects", "blind"):
        assert content["policies"][name]["n"] == 1
    card = (tmp_path / "vision" / "policy" / "card.md").read_text()
    assert "random initialisation, as asked for" in card
    assert "1 demonstrations with images" in said
    again = []
    run_vision(settings, tmp_path, again.append)
    assert "1 demonstrations with images" not in again
