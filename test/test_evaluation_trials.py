"""Policies in turns on the same starts of a robot: the order, what counts, what is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import Recipe, write_episode

from dexpie_ros.cli import main
from dexpie_ros.evaluation.recorded import read_trials, shortened

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.nodes.session_client import GraphError
from dexpie_ros.nodes.trials import Turns, policies_of

OLD, NEW = "/lab/outputs/bc/policy", "/lab/outputs/dexpie/policy"


def trial(root: Path, policy: str, start: int, outcome: str, steps: int = 50, **more: object):
    name = f"{Path(policy).parts[-2]}-{start}-{len(list(root.iterdir())) if root.is_dir() else 0}"
    note = {"limit_s": 4.0}
    recipe = Recipe(steps=steps, simulated=False)
    return write_episode(
        root / name, recipe, kind="evaluation", seed=start, policy_id=policy, outcome=outcome,
        note=note, **more,
    )  # fmt: skip


def test_who_begins_changes_with_every_start_and_what_is_done_is_not_done_again():
    turns = Turns(("a", "b", "c"), 3, first_start=7)
    assert turns.order() == [
        (7, "a"), (7, "b"), (7, "c"), (8, "b"), (8, "c"), (8, "a"), (9, "c"), (9, "a"), (9, "b"),
    ]  # fmt: skip
    assert turns.left({(7, "a"), (8, "c"), (3, "a")})[:3] == [(7, "b"), (7, "c"), (8, "b")]


def test_policies_are_looked_at_before_the_robot_moves(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    assert policies_of([tmp_path / "a", tmp_path / "b"])[1] == str(tmp_path / "b")
    with pytest.raises(GraphError, match="no policy"):
        policies_of([tmp_path])
    with pytest.raises(GraphError, match="there twice"):
        policies_of([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_the_report_by_hand(tmp_path, capsys):
    """Of starts 0 to 3 the old policy masters one, the new one three, one of them too late."""
    for start, (old, new) in enumerate(
        [("failure", "success"), ("success", "success"), ("failure", "failure")]
    ):
        trial(tmp_path, OLD, start, old)
        trial(tmp_path, NEW, start, new)
    trial(tmp_path, NEW, 3, "success", steps=110)  # 4.4 s: after the limit; without a partner
    trial(tmp_path, OLD, 4, "aborted")
    write_episode(tmp_path / "other", kind="deployment", policy_id=OLD)  # no trial
    assert main(["trials", "report", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "success within 4 s"
    assert [line.split()[:3] for line in lines[2:4]] == [
        ["bc", "3", "33.3%"],
        ["dexpie", "4", "50.0%"],
    ]
    text = "\n".join(lines)
    assert "dexpie - bc, 3 starts that both had (1 trials have no partner)" in text
    # 1 of 3 differs; success 2 s, failure the limit: (4 - 2) / 3 s sooner
    assert "success +33.3 points" in text and "1 starts better, 0 worse, McNemar p 1" in text
    assert "mean time to the limit -0.67 s" in text
    assert "1 aborted trials count for nothing" in text
    assert main(["trials", "report", str(tmp_path), "--limit", "5"]) == 0
    assert "75.0%" in capsys.readouterr().out, "the late success counts within 5 s"


def test_a_trial_that_is_made_again_replaces_the_one_before(tmp_path):
    trial(tmp_path, OLD, 0, "failure", created="2026-01-01T00:00:00.000+00:00")
    trial(tmp_path, OLD, 0, "success", created="2026-01-02T00:00:00.000+00:00")
    recorded = read_trials(tmp_path)
    assert recorded.repeated == 1 and [t.success for t in recorded.trials[OLD]] == [True]


def test_what_cannot_be_reported_is_said(tmp_path, capsys):
    tmp_path.joinpath("empty").mkdir()
    assert main(["trials", "report", str(tmp_path / "empty")]) == 2
    assert "dexpie trials run" in capsys.readouterr().err
    write_episode(tmp_path / "e", kind="evaluation", policy_id=OLD)  # says nothing of its limit
    assert main(["trials", "report", str(tmp_path)]) == 2
    assert "give --limit SECONDS" in capsys.readouterr().err
    assert main(["trials", "run", str(tmp_path), "--starts", "0"]) == 2
    assert "--starts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "short"),
    [
        ((OLD, NEW), ("bc", "dexpie")),
        (("/a/p", "/a/q/p"), ("/a/p", "q")),
        (("/a/p",), ("/a/p",)),
        (("", "/a/p"), ("", "/a/p")),
    ],
)
def test_names_of_policies_are_what_differs(paths, short):
    assert shortened(paths) == short
