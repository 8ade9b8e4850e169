"""What an experiment's report makes of unfinished, mixed and uneven results."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from policies import tiny_policy

from dexpie_ros.config import ConfigError, save_yaml, write_json
from dexpie_ros.evaluation.experiments.folder import claim
from dexpie_ros.evaluation.experiments.gains import gains, is_claim, mean_gain, to_plain
from dexpie_ros.evaluation.experiments.jobs import (
    FAILED,
    Job,
    _finished,
    _work,
    run_experiment,
)
from dexpie_ros.evaluation.experiments.page import write_page
from dexpie_ros.evaluation.experiments.results import (
    differences,
    load_found,
    select,
)
from dexpie_ros.evaluation.experiments.settings import (
    DEVELOPMENT,
    EVALUATIONS,
    ExperimentConfig,
    Unit,
    async_against_sync,
    ladder,
    staged_against_standard,
)
from dexpie_ros.evaluation.experiments.sources import commits, load_sources, mixture
from dexpie_ros.evaluation.experiments.unit import save_rollouts
from dexpie_ros.simulation.lockstep import Rollout


def rollout(seed: int, success: bool, step: int = 100, cause: str = "timeout") -> Rollout:
    return Rollout(
        seed, "evaluation", "success" if success else "failure", "" if success else cause,
        step + 5, step if success else None, 0, 0, 0, True, (), (),
    )  # fmt: skip


def keep(
    root: Path, unit: Unit, arm: str, good: int, trials: int = 10, step: int = 100, name: str = ""
) -> None:
    done = [rollout(EVALUATIONS + k, k < good, step) for k in range(trials)]
    path = root / unit.folder / "evaluation" / f"{arm}.json"
    save_rollouts(path, name or f"{arm}-policy", done)


def page(config: ExperimentConfig, root: Path) -> tuple[str, dict[str, Any]]:
    text = write_page(config, root, "dexpie experiment", "2026-01-02").read_text()
    return text, json.loads((root / "results.json").read_text())


TINY = ladder(tasks=["A"], regimes=["retry"], seeds=2, trials=20)


def test_arms_with_fewer_starts_are_named_and_not_compared(tmp_path: Path) -> None:
    unit = TINY.units()[0]
    keep(tmp_path, unit, "bc", 5, trials=20)
    keep(tmp_path, unit, "dexpie", 5, trials=10)
    text, plain = page(TINY, tmp_path)
    assert "A-retry/main/seed-000 dexpie (10 starts)" in plain["missing"]
    assert "15 of 16 evaluations have no result yet" in text
    assert "ladder.A-retry.dexpie" not in plain and "ladder.A-retry.bc" in plain
    # with fewer trials asked for, both have them all
    few = dataclasses.replace(TINY, trials=10)
    _, plain = page(few, tmp_path)
    assert plain["ladder.A-retry.dexpie"]["n"] == plain["ladder.A-retry.bc"]["n"] == 10
    assert plain["gain_dexpie_bc"]["value"] == 0.0


def test_arms_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    one, two = TINY.units()
    keep(tmp_path, one, "bc", 5, trials=20)
    keep(tmp_path, two, "dexpie", 9, trials=20)
    results = load_found(TINY, tmp_path).results
    assert differences(TINY, results) == [] and gains(TINY, results) == {}
    text, _ = page(TINY, tmp_path)
    assert "14 of 16" in text


def test_a_cell_without_common_seeds_does_not_stop_a_gain(tmp_path: Path) -> None:
    config = ladder(tasks=["A", "B"], regimes=["retry"], seeds=2, trials=10)
    for unit in config.units():
        if unit.task == "A":
            keep(tmp_path, unit, "bc", 2)
            keep(tmp_path, unit, "dexpie", 6)
        else:
            keep(tmp_path, unit, "bc" if unit.seed else "dexpie", 5)
    results = load_found(config, tmp_path).results
    gain = mean_gain(select(results, "dexpie"), select(results, "bc"))
    assert gain is not None and gain.cells == ("A-retry",) and gain.seeds == (0, 1)
    assert gain.success.value == pytest.approx(0.4)


def test_two_regimes_weigh_as_much_as_one(tmp_path: Path) -> None:
    config = ladder(tasks=["A", "B"], regimes=["retry", "terminal"], seeds=3, trials=10)
    better = {"A-retry": 8, "A-terminal": 6, "B-retry": 3}
    for unit in config.units():
        if unit.cell not in better:
            continue  # not run yet
        keep(tmp_path, unit, "bc", 2)
        keep(tmp_path, unit, "dexpie", better[unit.cell])
    plain = to_plain(config, load_found(config, tmp_path).results)
    gain = plain["gain_dexpie_bc"]
    # task A gains (60 + 40) / 2 points, B 10: (50 + 10) / 2; over cells it would be 37
    assert gain["value"] == pytest.approx(0.3)
    assert gain["interval"] == pytest.approx([0.3, 0.3])
    assert gain["cells"] == ["A-terminal", "A-retry", "B-retry"] and gain["seeds"] == [0, 1, 2]
    # 4 s to success instead of 8.7 s (A) or 16.5 s (B)
    a, b = (0.6 + 0.4) / 2 * (4.0 - 8.7), 0.1 * (4.0 - 16.5)
    assert gain["restricted_mean_s"] == pytest.approx((a + b) / 2)
    assert gain["restricted_mean_interval_s"] == pytest.approx([(a + b) / 2] * 2)
    text, _ = page(config, tmp_path)
    assert "A-terminal, A-retry, B-retry; seeds 0, 1, 2" in text


@pytest.mark.parametrize(
    ("make", "name", "first", "second"),
    [
        (async_against_sync, "async_gain_B", "async", "sync"),
        (staged_against_standard, "staged_gain_C", "staged", "standard"),
        (staged_against_standard, "staged_gain_C_driven", "staged", "standard_driven"),
    ],
)
def test_the_ablations_figures_have_the_protocols_names(
    make: Any, name: str, first: str, second: str, tmp_path: Path
) -> None:
    config = make(seeds=1, trials=10)
    for unit in config.units():
        if unit.variant in (first, second):
            keep(tmp_path, unit, "dexpie", {first: 7, second: 4}[unit.variant])
    plain = to_plain(config, load_found(config, tmp_path).results)
    assert plain[name]["value"] == pytest.approx(0.3)
    assert plain["differences"][0]["first"] == f"dexpie, {first}"
    # on another task it is another figure
    other = make(seeds=1, trials=10, tasks=["A"], regimes=["retry"])
    for unit in other.units():
        keep(tmp_path, unit, "dexpie", 5)
    assert name not in to_plain(other, load_found(other, tmp_path).results)


def test_all_four_claims_are_in_the_table_with_mcnemars_p(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, seeds=1, trials=10)
    (unit,) = config.units()
    for arm, good in (("bc", 1), ("hg_dagger", 4), ("hg_fast", 5), ("recap", 6), ("dexpie", 9)):
        keep(tmp_path, unit, arm, good)
    text, plain = page(config, tmp_path)
    claimed = {
        key for key, value in plain.items() if isinstance(value, dict) and value.get("claim")
    }
    assert claimed == {f"gain_dexpie_{a}" for a in ("bc", "hg_dagger", "hg_fast", "recap")}
    assert not any("claim" in d for d in plain["differences"]), "of one task: exploratory"
    assert "dexpie − hg_dagger" in text
    found = {(d["first"], d["second"]): d for d in plain["differences"]}
    assert ("bc", "recap") not in found, "each pair once"
    # eight starts to none: 2 / 2^8
    assert found["dexpie", "bc"]["mcnemar"] == [{"better": 8, "worse": 0, "p": 0.0078125}]
    assert "+8−0 (p 0.0078)" in text
    assert plain["gain_dexpie_hg_dagger"]["value"] == pytest.approx(0.5)
    assert plain["gain_dexpie_bc"]["interval"] == [None, None]


def test_a_claim_is_the_ladders_on_the_starts_that_count(tmp_path: Path) -> None:
    claim = "gain_dexpie_bc"
    assert is_claim(TINY, claim) and not is_claim(TINY, "gain_dexpie_paper_bc")
    assert not is_claim(dataclasses.replace(TINY, first_start=DEVELOPMENT), claim)
    assert not is_claim(async_against_sync(seeds=1, trials=10), "async_gain_B")
    variants = [{"name": "a", "arms": ["bc", "dexpie"]}, {"name": "b", "arms": ["dexpie"]}]
    mixed = ladder(tasks=["A"], regimes=["retry"], seeds=1, trials=10, variants=variants)
    for unit in mixed.units():
        for arm in mixed.arms_of(unit):
            keep(tmp_path, unit, arm, {"a": 5, "b": 9}[unit.variant])
    plain = to_plain(mixed, load_found(mixed, tmp_path).results)
    # DexPIE of one variant less BC of the other is nobody's gain
    assert "gain_dexpie_bc" not in plain and plain["differences"]
    assert not any(key.startswith("gain_") for key in plain)


def test_failures_add_up_to_the_misses_at_the_limit(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, seeds=1, trials=5)
    (unit,) = config.units()
    done = [
        rollout(EVALUATIONS, True, 100),
        rollout(EVALUATIONS + 1, True, 300),  # 12 s: after the limit of 8.7 s
        rollout(EVALUATIONS + 2, False, cause="fell"),
        rollout(EVALUATIONS + 3, False, cause="fell"),
        rollout(EVALUATIONS + 4, False),
    ]
    save_rollouts(tmp_path / unit.folder / "evaluation" / "bc.json", "p", done)
    text, plain = page(config, tmp_path)
    assert plain["ladder.A-retry.bc"]["failures"] == {"fell": 2, "too late": 1, "timeout": 1}
    assert plain["ladder.A-retry.bc"]["success"] == pytest.approx(0.2)
    assert "fell 2, too late 1, timeout 1" in text


def test_results_of_several_commits_are_said_to_be_mixed(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, seeds=1, trials=10)
    (unit,) = config.units()
    keep(tmp_path, unit, "bc", 4)
    run = tmp_path / unit.folder / "arms" / "bc" / "run.yaml"
    run.parent.mkdir(parents=True)
    run.write_text("data_sha256: abc\nprovenance: {commit: oldcommit}\n")
    (source,) = load_sources(config, tmp_path)
    assert (source.policy_id, source.data_sha256) == ("bc-policy", "abc")
    assert "mix 2 commits" in mixture(commits([source])) and "oldcommit" in mixture(
        commits([source])
    )
    run.write_text(f"data_sha256: abc\nprovenance: {{commit: {source.evaluated_at}}}\n")
    assert mixture(commits(load_sources(config, tmp_path))) == ""
    write_json(tmp_path / unit.folder / "critic-best" / "critic.json", {"hash": "feed"})
    run.write_text("provenance: {commit: oldcommit}\n")
    losses = [{"step": 50 * k, "loss": 1.0 / k} for k in range(1, 5)]
    lines = [json.dumps(row) for row in losses]
    (run.parent / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 250, "lo']))
    text, plain = page(config, tmp_path)
    assert "mix 2 commits" in text and plain["mixed"]
    assert sorted(plain["commits"]) == sorted(["oldcommit", source.evaluated_at])
    assert "Learning curves" in text and "bc-policy" in text
    assert "cores" in plain["about"]["machine"]


def test_an_evaluation_of_another_policy_counts_for_nothing(tmp_path: Path) -> None:
    """The policy was trained again, and that run was broken off before its evaluation."""
    config = dataclasses.replace(TINY, seeds=1, trials=10)
    (unit,) = config.units()
    keep(tmp_path, unit, "bc", 5)
    policy = tiny_policy()
    policy.save(tmp_path / unit.folder / "arms" / "bc" / "policy")
    assert "ladder.A-retry.bc" not in page(config, tmp_path)[1]
    assert _finished(config, [Job(unit, "bc")], tmp_path) == set()
    keep(tmp_path, unit, "bc", 5, name=policy.policy_id)
    assert page(config, tmp_path)[1]["ladder.A-retry.bc"]["success"] == 0.5
    assert _finished(config, [Job(unit, "bc")], tmp_path) == {Job(unit, "bc")}


def test_episodes_and_critics_of_another_commit_are_said_too(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, seeds=1, trials=10)
    (unit,) = config.units()
    keep(tmp_path, unit, "bc", 5)
    about = {"hash": "feed", "provenance": {"commit": "oldcritic"}}
    write_json(tmp_path / unit.folder / "critic-best" / "critic.json", about)
    (source,) = load_sources(config, tmp_path)
    assert source.prepared_at == ("oldcritic",)
    assert "oldcritic" in mixture(commits([source]))


def test_a_job_that_was_killed_is_named_ever_after(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, seeds=1, trials=1)

    def kill() -> None:
        while not (jobs := multiprocessing.active_children()):
            time.sleep(0.01)
        for job in jobs:
            job.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert run_experiment(config, tmp_path, workers=1) == ("A-retry/main/seed-000 prepare",)
    killer.join()
    assert page(config, tmp_path)[1]["failed"][0].endswith("prepare: failed: ended by SIGKILL")


def test_a_job_that_failed_is_named_ever_after(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, seeds=1, trials=1)
    (unit,) = config.units()
    (tmp_path / unit.folder).mkdir(parents=True)
    (tmp_path / unit.folder / "episodes").write_text("in the way")
    with pytest.raises(Exception, match="episodes"):
        _work(config, Job(unit, "recap"), str(tmp_path))
    text, plain = page(config, tmp_path)
    (failed,) = plain["failed"]
    assert failed.startswith("A-retry/main/seed-000: ") and f"recap{FAILED}" in failed
    assert "failed: A-retry/main/seed-000" in text


def test_arms_may_be_added_to_a_folder_and_nothing_else_changed(tmp_path: Path) -> None:
    small = ladder(variants=[{"arms": ["bc", "dexpie"]}])
    claim(small, tmp_path)
    claim(dataclasses.replace(ladder(), seeds=3), tmp_path)
    with pytest.raises(ConfigError, match="differs in variants"):
        claim(small, tmp_path)
    with pytest.raises(ConfigError, match="differs in variants"):
        claim(ladder(variants=[{"collection": "standard"}]), tmp_path)
    with pytest.raises(ConfigError, match="differs in mess"):
        claim(ladder(mess=0.5), tmp_path)


def test_a_folder_from_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    save_yaml(ladder(), path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(x for x in lines if not x.startswith("sync_delay_steps")))
    claim(ladder(), tmp_path)
    path.write_text("\n".join(x for x in lines if not x.startswith("sync_delay_steps")))
    with pytest.raises(ConfigError, match="sync_delay_steps"):
        claim(ladder(sync_delay_steps=9), tmp_path)


def test_too_few_seeds_are_no_interval(tmp_path: Path) -> None:
    for unit in TINY.units():
        keep(tmp_path, unit, "bc", 4, trials=20)
        keep(tmp_path, unit, "dexpie", 8, trials=20)
    gain = gains(TINY, load_found(TINY, tmp_path).results)["gain_dexpie_bc"]
    assert math.isnan(gain.success.low) and math.isnan(gain.restricted_mean_s.low)
