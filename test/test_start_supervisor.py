"""The supervisor against real processes: how each kind of end ends the graph."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dexpie_ros import supervisor
from dexpie_ros.config import ConfigError
from dexpie_ros.graph import NodeSpec
from dexpie_ros.realtime import preferred_thread
from dexpie_ros.running_graph import GraphFailed, RunningGraph
from dexpie_ros.shared_memory import remove_stale_segments
from dexpie_ros.supervisor import Grace

HERE = Path(__file__).parent
BRIEF = Grace(interrupt=0.5, terminate=0.5, kill=5.0)


@pytest.fixture(autouse=True)
def modules_of_the_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def plain(does, name="plain", **options):
    env = {"PLAIN": does}
    return NodeSpec("plain", name=name, module="graph_nodes.plain", env=env, **options)


def ticker(name="ticker", **options):
    return NodeSpec("ticker", name=name, module="graph_nodes.ticker", **options)


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


class Lines:
    """A graph's log file, read while it grows."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        return self.path.read_text() if self.path.exists() else ""

    def pid_after(self, words):
        until(lambda: f"{words} " in self() and "\n" in self().split(f"{words} ")[1])
        return int(self().split(f"{words} ")[1].split()[0])


@pytest.fixture
def log(tmp_path):
    return Lines(tmp_path / "graph.log")


def test_ros_nodes_get_names_parameters_and_close_cleanly(log):
    specs = [
        ticker("left", namespace="/arms", parameters={"rate": 50, "greeting": "hi: there"}),
        ticker("right"),
    ]
    with RunningGraph(specs, log.path) as graph:
        left = log.pid_after("hi: there from /arms/left")
        until(lambda: "hello from /right" in log())
        assert graph.supervisor.nodes["left"].pid == left
        assert graph.wait(0.1) is None
        graph.check()
        assert graph.stop() == 0
    assert log().count("closed") == 2 and "did not end" not in log()
    assert not alive(left)


def test_unusable_parameter_ends_the_graph_with_status_2(log):
    with RunningGraph([ticker(parameters={"rte": 1.0})], log.path) as graph:
        assert graph.wait(60) == 2
        with pytest.raises(GraphFailed, match=r"node ticker failed \(exit code 2\).*graph\.log"):
            graph.check()
    assert "unknown parameter rte; did you mean rate?" in log()
    assert "Traceback" not in log()


def test_required_node_takes_the_graph_with_it_and_gives_the_exit_code(log):
    with RunningGraph([plain("exit 7", "bad"), plain("sleep", "other")], log.path) as graph:
        other = log.pid_after("sleep")
        assert graph.wait(60) == 7
        assert graph.supervisor.failed == "bad"
    assert "bad is required: ending the graph" in log()
    assert not alive(other)


def test_killed_node_counts_as_a_shell_does(log):
    with RunningGraph([plain("sleep")], log.path) as graph:
        os.kill(log.pid_after("sleep"), signal.SIGKILL)
        assert graph.wait(60) == 128 + 9
    assert "plain ended (exit code 137, SIGKILL)" in log()


def test_nodes_do_not_inherit_a_place_before_others(log):
    with preferred_thread(), RunningGraph([ticker()], log.path) as graph:
        until(lambda: graph.supervisor.nodes["ticker"].pid is not None)
        pid = graph.supervisor.nodes["ticker"].pid
        until(lambda: os.sched_getscheduler(pid) == os.SCHED_OTHER)


def test_optional_node_may_end(log):
    specs = [plain("exit 3", "extra", required=False), plain("sleep", "main")]
    with RunningGraph(specs, log.path) as graph:
        log.pid_after("sleep")
        until(lambda: "extra ended (exit code 3)" in log())
        assert graph.wait(0.3) is None
        assert graph.stop() == 0


def test_graph_of_optional_nodes_ends_when_all_have(log):
    with RunningGraph([plain("exit 0", required=False)], log.path) as graph:
        assert graph.wait(60) == 0


def test_respawn(log, tmp_path):
    does = f"twice {tmp_path / 'starts'}"
    node = plain(does, required=False, respawn=True, respawn_delay=0.05)
    with RunningGraph([node, plain("sleep", "main")], log.path) as graph:
        log.pid_after("stays")
        log.pid_after("sleep")
        assert graph.supervisor.nodes["plain"].restarts == 2
        assert graph.stop() == 0
    assert "plain ended (exit code 1); again in 0.05 s" in log()


def test_a_required_node_is_started_again_only_if_it_lived(log, monkeypatch, tmp_path):
    does = f"twice {tmp_path / 'starts'}"
    node = plain(does, required=True, respawn=True, respawn_delay=0.01)
    monkeypatch.setattr(supervisor, "SETTLED_S", 1e6)
    with RunningGraph([node, plain("sleep", "main")], log.path) as graph:
        assert graph.wait(60) == 1
        assert graph.supervisor.nodes["plain"].restarts == 0
    assert "after its start: not started again" in log()
    (tmp_path / "starts").unlink()
    monkeypatch.setattr(supervisor, "SETTLED_S", 0.0)
    with RunningGraph([node, plain("sleep", "main")], log.path) as graph:
        log.pid_after("stays")
        assert graph.supervisor.nodes["plain"].restarts == 2
        assert graph.stop() == 0
    with RunningGraph([plain("exit 0", required=True, respawn=True)], log.path) as graph:
        assert graph.wait(60) == 0, "it wanted to end"
        assert graph.supervisor.nodes["plain"].restarts == 0


def test_node_that_cannot_use_its_config_is_not_started_again(log):
    node = plain("exit 2", required=True, respawn=True, respawn_delay=0.01)
    with RunningGraph([node], log.path) as graph:
        assert graph.wait(60) == 2
        assert graph.supervisor.nodes["plain"].restarts == 0
    assert "cannot use its configuration: not started again" in log()


def test_deaf_node_is_killed_in_the_end(log):
    with RunningGraph([plain("stubborn")], log.path, grace=BRIEF) as graph:
        pid = log.pid_after("stubborn")
        until(lambda: "deaf" in log())
        assert graph.stop() == 137
    assert "did not end within 0.5 s of SIGINT" in log()
    assert "did not end within 0.5 s of SIGTERM" in log()
    assert not alive(pid)


def test_children_of_a_node_do_not_stay(log):
    with RunningGraph([plain("parent")], log.path):
        child = log.pid_after("child")
        assert alive(child)
    until(lambda: not alive(child))


def test_endless_line_and_bytes_that_are_no_text_pass(log):
    with RunningGraph([plain("noisy")], log.path):
        until(lambda: "bad \ufffd byte" in log())
    assert log().count("x") >= 3_000_000
    assert "no end of line" in log()


def test_log_that_cannot_be_written_does_not_block_the_nodes(tmp_path):
    said = tmp_path / "said"
    with RunningGraph([plain(f"noisy {said}")], "/dev/full") as graph:
        until(said.exists)
        assert graph.wait(0.5) is None
        assert graph.stop() == 0


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            [NodeSpec("nothing_such")],
            "node nothing_such: its module .*nothing_such is not installed",
        ),
        ([NodeSpec("x", module="no_package.x")], "its module no_package.x is not installed"),
        ([plain("sleep"), plain("sleep")], "two nodes are called plain"),
    ],
)
def test_refused_before_anything_starts(specs, message, log):
    with pytest.raises(ConfigError, match=message), RunningGraph(specs, log.path):
        raise AssertionError("must not be entered")
    assert "sleep" not in log()


@pytest.fixture
def runner(tmp_path):
    """Starts the program; it does not outlast the test."""
    started = []

    def start(*arguments):
        with (tmp_path / "runner.log").open("w") as log:
            command = [sys.executable, "-m", "graph_nodes.runner", *arguments]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        started.append(process)
        return process, Lines(tmp_path / "runner.log")

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_run_ends_cleanly(runner, number):
    process, log = runner()
    pids = [log.pid_after(f"from /{name}") for name in ("one", "two")]
    process.send_signal(number)
    assert process.wait(60) == 0
    assert log().count("closed") == 2
    assert not any(map(alive, pids))


def test_second_ctrl_c_does_not_wait(runner):
    process, log = runner("deaf")
    until(lambda: log().count("deaf") == 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 137
    assert "did not end within" not in log()  # no patience ran out


def test_killed_supervisor_leaves_no_orphans(runner):
    process, log = runner()
    pids = [log.pid_after(f"from /{name}") for name in ("one", "two")]
    process.kill()
    process.wait()
    until(lambda: not any(map(alive, pids)))


def test_stale_shared_memory_goes_and_what_is_locked_stays(tmp_path):
    import fcntl

    def segment(base, extra=()):
        for name in (base, f"{base}_el", *extra):
            (tmp_path / name).write_bytes(b"1")
            os.utime(tmp_path / name, (1, 1))

    segment("fastdds_0123456789abcdef")
    segment("fastdds_port7400", ["sem.fastdds_port7400_mutex"])
    segment("fastdds_aaaaaaaaaaaaaaaa")
    segment("other_0123456789abcdef")
    segment("fastdds_bbbbbbbbbbbbbbbb")
    os.utime(tmp_path / "fastdds_bbbbbbbbbbbbbbbb_el")  # just made
    with (tmp_path / "fastdds_aaaaaaaaaaaaaaaa_el").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert remove_stale_segments(tmp_path) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "fastdds_aaaaaaaaaaaaaaaa",
        "fastdds_aaaaaaaaaaaaaaaa_el",
        "fastdds_bbbbbbbbbbbbbbbb",
        "fastdds_bbbbbbbbbbbbbbbb_el",
        "other_0123456789abcdef",
        "other_0123456789abcdef_el",
    ]
