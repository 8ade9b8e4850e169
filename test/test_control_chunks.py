"""Chunk execution by absolute time."""

import numpy as np
import pytest

from dexpie_ros.control.chunks import ChunkExecutor, check_chunk
from dexpie_ros.control.types import STEP_NS, Chunk

ORIGIN = 1_000_000_000


def at(step: int) -> int:
    return ORIGIN + step * STEP_NS


def chunk(step: int, length: int = 24, prefix: int = 0, offset: float = 0.0) -> Chunk:
    """Moves 1 mm per step in x, x = the absolute step in mm (+ offset)."""
    positions = np.zeros((length, 3))
    positions[:, 0] = (step + np.arange(length)) * 1e-3 + offset
    quaternions = np.tile([0.0, 0.0, 0.0, 1.0], (length, 1))
    return Chunk(at(step), positions, quaternions, np.full((length, 6), 0.5), prefix)


def x(command) -> float:
    return round(float(command.tcp.position[0]) * 1e3, 9)


def test_every_action_comes_at_its_time_and_then_nothing():
    executor = ChunkExecutor()
    assert executor.command(at(0)) is None
    executor.add(chunk(0))
    assert [x(executor.command(at(k))) for k in range(1, 24)] == list(range(1, 24))
    assert executor.command(at(24)) is None
    assert executor.remaining(at(24)) == 0 and executor.remaining(at(0)) == 24


def test_a_chunk_in_time_takes_over_at_the_next_step_without_a_seam():
    executor = ChunkExecutor()
    executor.add(chunk(0))
    for k in range(24):
        executor.command(at(k))
        if k == 22:  # observed at 20, ready after step 22: prefix 4 covers 20..23
            assert executor.add(chunk(20, prefix=4))
    assert x(executor.command(at(24))) == 24
    statistics = executor.statistics
    assert (statistics.trimmed, statistics.late) == (3, 0)
    assert statistics.seams[-1].distance == 0.0


def test_a_late_chunk_loses_exactly_what_has_passed():
    executor = ChunkExecutor()
    executor.add(chunk(0))
    commands = [executor.command(at(k)) for k in range(28)]
    assert commands[24] is None and commands[27] is None  # ran out: the caller holds
    executor.add(chunk(20, prefix=4))
    assert x(executor.command(at(28))) == 28
    assert executor.statistics.trimmed == 8  # 20..27
    assert executor.statistics.late == 4  # 24..27, behind the prefix


def test_a_chunk_that_is_all_past_or_older_than_the_executing_one_is_refused():
    executor = ChunkExecutor()
    executor.add(chunk(0))
    executor.command(at(30))
    assert not executor.add(chunk(1, length=10))
    assert executor.statistics.expired == 1
    assert executor.add(chunk(25))
    assert not executor.add(chunk(24))
    assert executor.statistics.outdated == 1
    assert executor.chunk.time_ns == at(25)


def test_seams_are_measured_where_the_switch_happens():
    executor = ChunkExecutor()
    executor.add(chunk(0))
    executor.command(at(10))
    executor.add(chunk(8, offset=0.02))
    seam = executor.statistics.seams[-1]
    assert seam.time_ns == at(11)
    assert seam.distance == pytest.approx(0.02) and seam.angle == 0 and seam.hand == 0
    assert x(executor.command(at(11))) == 31


def test_upcoming_and_remaining():
    executor = ChunkExecutor()
    executor.add(chunk(0))
    assert [x(c) for c in executor.upcoming(at(3), 4)] == [3, 4, 5, 6]
    assert [x(c) for c in executor.upcoming(at(22), 4)] == [22, 23]
    executor.clear()
    assert executor.upcoming(at(3), 4) == () and executor.remaining(at(3)) == 0


def test_stamps_beside_the_grid_are_taken_at_the_nearest_step():
    executor = ChunkExecutor()
    executor.add(chunk(0))
    assert x(executor.command(at(5) + STEP_NS // 2 - 1)) == 5
    assert x(executor.command(at(6) - STEP_NS // 2 + 1)) == 6


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("positions", np.full((24, 3), np.nan), "positions holds NaN"),
        ("hand", np.zeros((24, 5)), "shapes"),
        ("positions", np.zeros((0, 3)), "shapes"),
        ("quaternions", np.zeros((24, 4)), "unit length"),
        ("step_ns", 0, "step_ns"),
        ("prefix_length", 25, "prefix_length"),
    ],
)
def test_chunks_that_cannot_be_executed_are_named(field, value, says):
    good = chunk(0)
    bad = Chunk(**{**vars(good), field: value})
    assert says in check_chunk(bad) and check_chunk(good) == ""
    with pytest.raises(ValueError, match=says):
        ChunkExecutor().add(bad)


def switched(prefix: int, at_step: int, jump: float = 0.0) -> ChunkExecutor:
    """A chunk observed at step 20 takes over before step ``at_step``; ``jump`` (m) after its
    prefix."""
    executor = ChunkExecutor()
    executor.add(chunk(0))
    executor.command(at(at_step - 1))
    new = chunk(20, prefix=prefix)
    new.positions[prefix:, 0] += jump
    executor.add(new)
    return executor


def test_the_step_out_of_the_prefix_is_recorded_beside_the_steps_inside():
    statistics = switched(prefix=4, at_step=22, jump=0.005).statistics
    assert statistics.seams[-1].distance == 0.0  # on a prefix action nothing can be seen
    (entry,), (inside,) = statistics.entries, statistics.inside
    assert entry.distance == pytest.approx([0.006])
    assert inside.distance == pytest.approx([0.001] * 19)  # 24 - 4 free actions
    figures = statistics.as_dict()
    assert figures["seam_step_mm_p95"] == pytest.approx(6.0)
    assert figures["chunk_step_mm_p95"] == pytest.approx(1.0)
    assert figures["seam_step_deg_p95"] == figures["seam_step_opening_p95"] == 0.0


def test_where_the_prefix_has_passed_the_step_is_from_what_was_executed():
    (entry,) = switched(prefix=2, at_step=23, jump=0.005).statistics.entries
    assert entry.distance == pytest.approx([0.006])  # 22 of the old chunk -> 23 + jump
    (inside,) = switched(prefix=2, at_step=23).statistics.inside
    assert len(inside.distance) == 20  # 23 .. 43
    assert not switched(prefix=2, at_step=26).statistics.entries  # the robot held: no old action


def test_angles_and_openings_of_steps():
    new = chunk(20, prefix=1)
    half = np.radians(3.0) / 2
    new.quaternions[1:] = [0.0, 0.0, np.sin(half), np.cos(half)]
    new.hand[3:] = 0.7
    executor = ChunkExecutor()
    executor.add(chunk(0))
    executor.command(at(19))
    executor.add(new)
    figures = executor.statistics.as_dict()
    assert figures["seam_step_deg_p95"] == pytest.approx(3.0)
    assert executor.statistics.inside[0].angle.max() == pytest.approx(0.0, abs=1e-7)
    assert executor.statistics.inside[0].hand.tolist() == pytest.approx([0, 0.2] + [0] * 20)


def test_nobody_executes_a_proposal_so_its_steps_are_not_recorded():
    executor = ChunkExecutor()
    executor.add(chunk(0))
    executor.command(at(0))
    executor.add(chunk(5), record_seam=False)
    assert not executor.statistics.entries and not executor.statistics.inside
    assert executor.statistics.as_dict()["chunk_step_mm_p95"] == 0.0
