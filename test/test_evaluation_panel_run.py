"""The panel by command: laboratories of its conditions, a tiny policy on all of them, the gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from policies import tiny_policy

from dexpie_ros import cli
from dexpie_ros.config import ConfigError
from dexpie_ros.evaluation.experiments.settings import TASKS
from dexpie_ros.evaluation.panel import load_result
from dexpie_ros.evaluation.panel_run import (
    FIRST_SEED,
    panel_laboratory,
    panel_trials,
    run_panel,
    task_panel,
)
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.simulation.cell import CellConfig
from dexpie_ros.simulation.disturbances import DisturbanceConfig
from dexpie_ros.simulation.lockstep import LockstepConfig, LockstepRunner, Rollout, Task
from dexpie_ros.simulation.operator import OperatorConfig


def test_every_task_has_a_panel_of_its_own() -> None:
    names = ["nominal", "smaller", "larger", "heavier", "slip", "drop", "pose_error"]
    panels = {key: task_panel(*key) for key in TASKS}
    assert len({p.key for p in panels.values()}) == len(TASKS) == 6
    for (task, regime), panel in panels.items():
        assert [c.name for c in panel.conditions] == names
        for condition in panel.conditions:
            lab = panel_laboratory(task, regime, condition)
            assert lab.operator.cell == lab.cell
            own = getattr(lab.cell, lab.cell.task)
            assert (own.scale != 1) == (condition.name in ("smaller", "larger"))
            assert (own.mass_scale != 1) == (condition.name == "heavier")
            went = {k for k in ("slip", "drop", "pose_error") if getattr(lab.cell.disturbances, k)}
            assert went == ({condition.name} if condition.disturbed else set())
            assert condition.seeds()[0] == FIRST_SEED


def test_a_late_success_is_no_success() -> None:
    condition = task_panel("A").conditions[0]
    done = [
        Rollout(7, "evaluation", "success", "", 105, step, 0, 0, 0, True, disturbed=True)
        for step in (100, 300)
    ]
    got = panel_trials(condition, done, 8.7)
    assert [(t.success, t.late) for t in got] == [(True, False), (False, True)]
    assert [(t.contact, t.disturbed, t.time_s) for t in got] == [
        (True, True, 4.0),
        (True, True, 12),
    ]


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_rollout_says_whether_a_disturbance_acted(probability: float) -> None:
    cell = CellConfig(disturbances=DisturbanceConfig(slip=probability))
    runner = LockstepRunner(LockstepConfig(cell=cell, operator=OperatorConfig(cell=cell)))
    try:
        assert runner.run(Task("demonstration", 3)).disturbed == bool(probability)
    finally:
        runner.close()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    tiny_policy().save(folder)
    return folder


def test_the_expert_shows_what_a_panel_leaves_room_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "expert", "--panel", "--task", "A", "--trials", "1", "--workers", "1"]
    assert cli.main([*words, "--output", str(tmp_path / "expert.json")]) == 0
    assert "phase gate" not in capsys.readouterr().out
    result = load_result(tmp_path / "expert.json", task_panel("A", trials=1))
    assert result.checkpoint == "expert" and result.row("nominal").success.value == 1.0
    assert result.row("drop").recovery is not None
    text = (tmp_path / "expert.html").read_text()
    assert "continue_bc" not in text and "rl_finetune" not in text


def test_the_panel_from_command_to_report(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "one.json", tmp_path / "two.json"
    words = ["evaluate", str(policy), "--panel", "--task", "A", "--trials", "1", "--workers", "1"]
    assert cli.main([*words, "--output", str(first)]) == 0
    said = capsys.readouterr().out
    for text in ("nominal", "heavier", "pose_error", "contact", "recovery", "continue_bc"):
        assert text in said
    result = load_result(first, task_panel("A", trials=1))
    assert len(result.trials) == 7 and not any(t.success for t in result.trials)
    assert cli.main([*words, "--output", str(second), "--before", str(first)]) == 0
    page = second.with_suffix(".html").read_text()
    for text in ("success before", "contact before", "recovery before", "points", "p 1.000"):
        assert text in page
    assert "continue_bc" in page and "--before" in page
    # the same policy on the same starts
    one, two = (json.loads(p.read_text())["trials"] for p in (first, second))
    assert one == two


def test_one_task_as_the_experiments_evaluate_it(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(policy), "--task", "A", "--regime", "terminal", "--trials", "1"]
    words += ["--workers", "1", "--output", str(tmp_path / "x.json"), "--set", "beta=0.5"]
    assert cli.main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "task bottle (terminal)" in said and "of 8.7 s" in said and "beta=0.5" in said
    kept = json.loads((tmp_path / "x.json").read_text())
    assert kept["cell"]["bottle"]["regime"] == "terminal" and kept["inference"]["beta"] == 0.5


def test_what_does_not_fit_is_refused(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(policy), "--panel"]) == 2
    assert "belong together" in capsys.readouterr().err
    assert cli.main(["evaluate", str(policy), "--regime", "terminal"]) == 2
    assert cli.main(["evaluate", str(policy), "--task", "A", "--demo", str(tmp_path)]) == 2
    assert "belongs to --task" in capsys.readouterr().err
    assert cli.main(["evaluate", str(policy), "--panel", "--task", "A", "--set", "beta=1"]) == 2
    assert cli.main(["evaluate", str(policy), "--trials", "1", "--set", "betta=1"]) == 2
    assert "did you mean beta" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="run the panel again"):
        run_panel(policy, "A", before=tmp_path / "none.json")
    spec = ObservationSpec(parts=("tcp", "objects"), object_names=("candy", "lid"))
    tiny_policy(observation=spec).save(tmp_path / "other")
    with pytest.raises(ConfigError, match="observes candy, lid, which task A does not have"):
        run_panel(tmp_path / "other", "A")
