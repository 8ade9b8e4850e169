"""The fixed panel, the phase gate and the overlay video."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from critic_data import reach

from dexpie_ros.config import ConfigError
from dexpie_ros.episodes.labels import Labels
from dexpie_ros.evaluation.gate import GateConfig, decide
from dexpie_ros.evaluation.overlay import regions, write_overlay
from dexpie_ros.evaluation.panel import (
    Condition,
    Panel,
    PanelResult,
    PanelTrial,
    compare_panels,
    evaluate_panel,
    load_result,
    save_result,
    simulated_panel,
)
from dexpie_ros.evaluation.report import render
from dexpie_ros.evaluation.report_data import ReportData
from dexpie_ros.evaluation.statistics import wilson

PANEL = Panel(
    "bottle",
    9.0,
    (Condition("nominal", trials=10), Condition("slip", trials=10, disturbed=True)),
)


def result(checkpoint: str, nominal: int, slip: int, hit: int = 8) -> PanelResult:
    trials = [
        PanelTrial("nominal", 7000 + k, k < nominal, True, False, 5.0, False) for k in range(10)
    ]
    trials += [
        PanelTrial("slip", 7000 + k, k < slip, k < 9, k < hit, 6.0, late=k == slip)
        for k in range(10)
    ]
    return evaluate_panel(PANEL, checkpoint, trials)


def test_rows_by_hand() -> None:
    got = result("bc", nominal=6, slip=3)
    nominal, slip = got.row("nominal"), got.row("slip")
    assert nominal.success == wilson(6, 10) and nominal.recovery is None
    assert slip.contact_entry == wilson(9, 10)
    # something went wrong in 8 trials, 3 of which still succeeded and one after the limit
    assert slip.success == wilson(3, 10) and slip.recovery == wilson(4, 8)


def test_every_start_is_run_once() -> None:
    trials = list(result("bc", 6, 3).trials)
    with pytest.raises(ValueError, match="wants 20 trials, got 19"):
        evaluate_panel(PANEL, "bc", trials[:-1])
    with pytest.raises(ValueError, match="run every start once"):
        evaluate_panel(PANEL, "bc", [*trials, trials[0]])
    foreign = dataclasses.replace(trials[0], seed=1)
    with pytest.raises(ValueError, match="unknown"):
        evaluate_panel(PANEL, "bc", [foreign, *trials[1:]])


def test_before_and_after() -> None:
    nominal, slip = compare_panels(result("bc", 4, 3), result("dexpie", 9, 3))
    assert nominal.success.value == pytest.approx(0.5)
    assert (nominal.test.better, nominal.test.worse) == (5, 0)
    assert slip.success.value == 0.0 and slip.test.p == 1.0
    other = dataclasses.replace(result("dexpie", 9, 3), panel="else")
    with pytest.raises(ValueError, match="run both on one panel"):
        compare_panels(result("bc", 4, 3), other)


def test_results_survive_the_disk(tmp_path: Path) -> None:
    saved = result("bc", 6, 3)
    save_result(tmp_path / "bc.json", saved)
    assert load_result(tmp_path / "bc.json", PANEL) == saved
    harder = dataclasses.replace(PANEL, limit_s=5.0)
    assert harder.key != PANEL.key
    with pytest.raises(ConfigError, match="run the panel again"):
        load_result(tmp_path / "bc.json", harder)
    content = json.loads((tmp_path / "bc.json").read_text())
    content["trials"][0]["surprise"] = 1
    (tmp_path / "bc.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="surprise"):
        load_result(tmp_path / "bc.json", PANEL)
    with pytest.raises(ConfigError, match="No such file"):
        load_result(tmp_path / "none.json", PANEL)


def test_the_standard_panel() -> None:
    panel = simulated_panel("bottle", 9.0, {"tall bottle": ["bottle.height=0.2"]}, trials=5)
    assert [c.name for c in panel.conditions] == [
        "nominal", "tall bottle", "slip", "drop", "pose_error",
    ]  # fmt: skip
    assert panel.conditions[2].overrides == ("disturbances.slip=1.0",)
    assert [c.disturbed for c in panel.conditions] == [False, False, True, True, True]
    assert list(panel.conditions[0].seeds()) == [7000, 7001, 7002, 7003, 7004]
    with pytest.raises(ValueError, match="must be there and differ"):
        Panel("bottle", 9.0, (Condition("a"), Condition("a")))


@pytest.mark.parametrize(
    ("success", "contact", "phase", "certain"),
    [
        ((95, 100), (99, 100), "rl_finetune", True),
        ((40, 100), (99, 100), "continue_bc", True),
        ((95, 100), (50, 100), "continue_bc", True),
        ((15, 20), (19, 20), "rl_finetune", False),
        ((13, 20), (19, 20), "continue_bc", False),
        # exactly at the threshold is not above it
        ((70, 100), (99, 100), "continue_bc", False),
    ],
)
def test_gate(
    success: tuple[int, int], contact: tuple[int, int], phase: str, certain: bool
) -> None:
    got = decide(wilson(*success), wilson(*contact), GateConfig())
    assert (got.phase, got.certain) == (phase, certain)
    assert len(got.reasons) == 2 and "success" in got.reasons[0]


def test_the_report_shows_panel_and_gate() -> None:
    before, after = result("bc", 4, 3), result("dexpie", 9, 5)
    gate = decide(before.row("nominal").success, before.row("nominal").contact_entry, GateConfig())
    text = render(ReportData("a", panel=before, panel_after=after, gate=gate))
    assert 'id="panel"' in text and "continue_bc" in text and text.count("<svg") == 3
    alone = render(ReportData("a", panel=before))
    assert "difference" not in alone and alone.count("<svg") == 3


def test_regions() -> None:
    assert regions([0.0, 0.3, 0.5, 0.7, 1.0]).tolist() == [0, 0, 1, 2, 2]


class Flat:
    """Images of one grey level per step."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full((48, 64, 3), (200, 100, 50), np.uint8)

    def shrunk(self, index: int, size: int = 224) -> np.ndarray:
        return self[index][:size, :size]


def test_overlay_video(tmp_path: Path) -> None:
    episode = reach(3, human=slice(30, None))
    steps = len(episode)
    episode = dataclasses.replace(episode, cameras={"front": Flat(steps), "wrist": Flat(steps)})
    good = np.linspace(0.0, 1.0, steps)
    labels = Labels(good - 1.0, good * 0.0, good, {"critic": "x"})
    path = write_overlay(tmp_path / "value.mp4", episode, labels, height=96)
    video = cv2.VideoCapture(str(path))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == steps
    assert video.get(cv2.CAP_PROP_FPS) == 25.0
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 640
    done, frame = video.read()
    video.release()
    assert done and frame.shape == (96 + 150, 640, 3)
    # RGB in, BGR out, in the middle of the left picture
    assert np.abs(frame[48, 280].astype(int) - [50, 100, 200]).max() < 16
    # the ground is red where it is bad, green where it is good
    bad, fine = frame[96 + 110, 30].astype(int), frame[96 + 110, 600].astype(int)
    assert bad[2] > bad[1] and fine[1] > fine[2]
    assert [p.name for p in tmp_path.iterdir()] == ["value.mp4"]
    with pytest.raises(ValueError, match="label it again"):
        write_overlay(tmp_path / "x.mp4", reach(4), labels)
    assert not (tmp_path / "x.mp4").exists()
