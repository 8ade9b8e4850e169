"""The main job, end to end and live, at its smallest; and that it resumes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

SMALL = (
    "lockstep_demonstrations=3", "lockstep_starts=3", "iterations=60", "critic_epochs=2",
    "evaluations=3",
)  # fmt: skip


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = [sys.executable, "-m", "dexpie_ros.cli", "demo", "--quick", *settings, *arguments]
    return subprocess.run(
        [*command, "--output", str(folder)], capture_output=True, text=True, timeout=1500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    result = demo(folder)
    graph_log = (folder / "graph.log").read_text() if (folder / "graph.log").exists() else ""
    assert result.returncode == 0, result.stderr[-3000:] + graph_log[-3000:]
    assert "DexPIE" in result.stdout
    return folder


@pytest.mark.timeout(1800)
def test_it_ends_with_a_report(done: Path) -> None:
    report = (done / "report.html").read_text(encoding="utf-8")
    for expected in ("DexPIE", "McNemar", "Critic", "How to reproduce", "data:image"):
        assert expected in report
    loaded = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', report)
    assert not loaded, f"the report must be whole in itself, but loads {loaded}"
    results = json.loads((done / "results.json").read_text(encoding="utf-8"))
    assert results["BC"]["n"] == results["DexPIE"]["n"] == 3
    assert results["environment"]["commit"]


@pytest.mark.timeout(1800)
def test_data_came_from_both_worlds(done: Path) -> None:
    notes = [
        json.loads(p.read_text())["info"]["note"] for p in done.glob("episodes/*/episode.json")
    ]
    made = {note["made_by"] for note in notes}
    assert made == {"live", "lockstep"}


@pytest.mark.timeout(1800)
def test_a_second_run_finds_everything_there(done: Path) -> None:
    policy = done / "policies" / "dexpie" / "policy" / "model.safetensors"
    weights = (policy, done / "critic" / "critic.safetensors")
    before = [path.stat().st_mtime_ns for path in weights]
    result = demo(done)
    assert result.returncode == 0, result.stderr[-2000:]
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert "live graph" not in result.stdout, "no graph was started again"


@pytest.mark.timeout(1800)
def test_other_settings_are_refused_with_a_remedy(done: Path) -> None:
    result = demo(done, "--set", "seed=5")
    assert result.returncode == 2
    assert "--fresh" in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    result = demo(tmp_path / "new", "--set", "iteration=5")
    assert result.returncode == 2
    assert "did you mean iterations?" in result.stderr
    assert not (tmp_path / "new").exists(), "nothing half-written"


@pytest.mark.parametrize("words", [("--fresh",), ()])
def test_a_folder_of_something_else_is_neither_deleted_nor_taken(tmp_path: Path, words) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = demo(tmp_path, *words)
    assert result.returncode == 2
    assert "holds no demo run (no demo.yaml) but thesis.txt" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
