"""An episode in the terminal: every row over the same steps, nothing invented, nothing hidden."""

import subprocess
import sys

import factories
import numpy as np
import pytest
from factories import Recipe

from dexpie_ros.episodes import Collection, EpisodeError, Labels, read_episode, write_labels
from dexpie_ros.episodes.annotations import annotate
from dexpie_ros.episodes.show import band, columns, lines, marks, sparkline


@pytest.fixture
def path(tmp_path):
    recipe = Recipe(steps=60, human=((20, 40),), events=((30, '{"note": "slips"}'),))
    return factories.write_episode(tmp_path / "e", recipe, kind="correction", policy_id="bc")


def shown(path, **arguments):
    return list(lines(Collection(path).find(str(path)), **arguments))


def row(said, name):
    (line,) = (line for line in said if line.startswith(f"{name} "))
    return line[11:]


@pytest.mark.parametrize(("steps", "width"), [(1, 10), (7, 10), (10, 10), (61, 10), (1000, 7)])
def test_every_step_is_in_exactly_one_column(steps, width):
    parts = columns(steps, width)
    assert len(parts) == min(steps, width)
    assert [k for part in parts for k in range(part.start, part.stop)] == list(range(steps))


def test_pictures_of_rows():
    assert sparkline(np.arange(8.0), 8, 0, 7.9) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.array([0.0, np.nan, 1.0, 2.0]), 4, 0, 1) == "▁ ██", "clipped, never wrapped"
    assert sparkline(np.array([0.0, np.nan, 1.0, np.nan]), 2, 0, 1) == "▁█"
    assert sparkline(np.zeros(3), 3, 0, 0) == "▁▁▁", "a row that never moves"
    assert band("ppHHHp", 2) == "pH" and band("ppHHHp", 6) == "ppHHHp"
    assert marks(np.array([False, True, False, False]), 2) == "x "


def test_it_shows_who_drove_and_what_the_hand_did(path):
    said = shown(path, width=11 + 30 + 60)
    drives = row(said, "who drives")
    assert drives.startswith("p" * 20 + "H" * 20 + "p" * 20)
    assert "p policy" in drives and "H human" in drives and "hold" not in drives
    episode = read_episode(path)
    hand = row(said, "hand")[:60]
    expected = (episode.command_hand.mean(axis=1) * 8).astype(int).clip(0, 7)
    assert hand == "".join("▁▂▃▄▅▆▇█"[k] for k in expected)
    assert "mm per step" in row(said, "step") and row(said, "step")[0] == " ", "no step before it"
    assert said[0].startswith("e: success, 2.4 s in 60 control steps (33 % by the operator)")
    assert "correction of bottle" in said[1] and "policy bc" in said[1]
    assert any("1.20 s" in line and "slips" in line for line in said)
    assert not any(line.startswith(("value", "stalls", "late", "stage")) for line in said)


def test_it_shows_labels_stages_and_corrections(path):
    episode = read_episode(path)
    value = np.linspace(-1, 0, 60)
    good = (np.arange(60) >= 30).astype(float)
    write_labels(path, "m1", Labels(value, value, good, {"critic": "abc"}))
    start = int(episode.time_ns[0])
    annotate(path, stages=[(start + 30 * 40_000_000, "place")], interventions=[])
    said = shown(path, width=101)
    assert row(said, "value m1")[:60:59] == "▁█" and "-1.00 .. 0.00" in row(said, "value m1")
    assert row(said, "optimality").startswith("-" * 30 + "+" * 30)
    assert "50 %" in row(said, "optimality")
    assert row(said, "stage").startswith("a" * 30 + "b" * 30)
    assert "b place" in row(said, "stage")
    assert "H" not in row(said, "corrected"), "annotated: nobody intervened"
    assert any(line.startswith("annotation 1") for line in said)
    with pytest.raises(EpisodeError, match="no such labels"):
        shown(path, tag="m2")


def test_the_health_of_streams_is_a_table(path):
    said = shown(path)
    (line,) = (line for line in said if line.startswith("/arm/tcp_pose"))
    assert line.split()[1:4] == ["60", "60", "0"], "received, expected, lost"
    assert any(line.startswith("/teleop/tracker") and line.endswith("none") for line in said)
    assert "nothing came on" in said[0]


def test_a_long_episode_fits_the_terminal(tmp_path):
    path = factories.write_episode(tmp_path / "long", Recipe(steps=500, images=False))
    said = shown(path, width=80)
    assert all(
        len(line) <= 80 for line in said if line.startswith(("who", "step", "hand", "force"))
    )


def test_a_pipe_that_is_closed_early_is_no_error(path):
    command = f"{sys.executable} -m dexpie_ros.cli episodes show {path} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("e: success") and done.stderr == ""
