"""The doctor on this machine, and on machines that lack something."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from dexpie_ros import doctor
from dexpie_ros.doctor import State


def run():
    out = io.StringIO()
    status = doctor.run(Console(file=out, width=200))
    return status, out.getvalue()


def test_here_the_main_job_can_run():
    status, text = run()
    assert status == 0, text
    for what in ("Python", "ROS 2", "RMW", "dexpie_msgs", "DDS", "torch", "off-screen GL", "disk"):
        assert re.search(rf"ok .*{what}", text), text
    assert re.search(r"ControlStep RIHS01_[0-9a-f]{12}\.\.\.", text) or "Humble" in text
    assert "an image was rendered" in text and "from another process" in text
    assert "The main job can run here: make demo" in text


def lacking(monkeypatch, word, error):
    """A machine on which every probe that contains ``word`` fails."""

    def attempt(code):
        if word in code:
            return None, error
        return "x\ny\n", ""

    monkeypatch.setattr(doctor, "_try", attempt)


@pytest.mark.parametrize(
    ("word", "row", "remedy"),
    [
        (
            "get_rmw_implementation",
            "ROS 2",
            "source the setup.bash of a ROS 2 installation, or: make",
        ),
        ("ControlStep", "dexpie_msgs", "make setup"),
        ("SceneRenderer", "off-screen GL", "apt-get install -y libegl1"),
        ("torch", "torch", "make setup"),
        ("echo", "DDS", "see the ROS 2 row; if that is good, check ROS_DOMAIN_ID"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(monkeypatch, word, row, remedy):
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    lacking(monkeypatch, word, "ImportError: libbroken.so.1")
    status, text = run()
    assert status == 1
    assert re.search(rf"missing .*{row} .*libbroken\.so\.1", text), text
    assert re.search(rf"to mend: {row}: {re.escape(remedy)}", text), text
    assert "cannot run here yet" in text


def test_messages_built_from_other_definitions(monkeypatch, tmp_path):
    built = tmp_path / "share/dexpie_msgs/msg"
    built.mkdir(parents=True)
    (built / "ControlStep.msg").write_text("uint8 old\n")
    (built / "ControlStep.json").write_text('{"type_hashes": []}')
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_try", lambda code: ("there", ""))
    (finding,) = doctor._messages()
    assert finding.state is State.MISSING and "ControlStep" in finding.found
    source = Path(doctor.__file__).parent.parent / "msg"
    for file in (*source.glob("msg/*.msg"), *source.glob("srv/*.srv")):
        copy = built.parent / file.parent.name / file.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(f"# of an older day\n\n{file.read_text()}# and its end\n")
    (finding,) = doctor._messages()
    assert finding.state is State.GOOD, "comments are no definitions"


def test_little_space_is_seen(monkeypatch):
    usage = type("Usage", (), {"free": 1 << 20, "total": 64 << 20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    disk, memory = doctor._space()
    assert disk.state is State.MISSING and memory.state is State.OPTIONAL
    assert "--shm-size" in memory.remedy


def test_probe_reports_the_last_line_of_an_error():
    assert doctor._try("raise OSError('libfoo.so: cannot open')") == (
        None,
        "OSError: libfoo.so: cannot open",
    )
    assert doctor._try("import os; os.abort()")[0] is None
