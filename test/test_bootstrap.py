"""scripts/bootstrap.sh as far as it goes without downloading anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = (
    "bash", "cat", "cksum", "cut", "dirname", "env", "find", "flock", "grep", "ls", "mkdir", "rm",
    "sort", "tail", "tr", "xargs", "uname", "setpriv",
)  # fmt: skip


@pytest.fixture
def checkout(tmp_path):
    """What the script looks at, and a PATH that has only what is put there."""
    for name in ("setup.py", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(ROOT / "msg", tmp_path / "msg", ignore=shutil.ignore_patterns("build"))
    (tmp_path / "dexpie_ros/nodes").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def program(checkout, name, script):
    file = checkout / "bin" / name
    file.write_text(f"#!/bin/bash\n{script}\n")
    file.chmod(0o755)


def bootstrap(checkout, **environment):
    return subprocess.run(
        [str(checkout / "scripts/bootstrap.sh")],
        env={"PATH": str(checkout / "bin"), "HOME": os.environ.get("HOME", "/"), **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_no_fitting_python(checkout):
    done = bootstrap(checkout)
    assert done.returncode == 2
    assert "this machine has no Python 3.10, 3.11 or 3.12; install one" in done.stderr
    done = bootstrap(checkout, PYTHON="/no/such/python")
    assert done.returncode == 2 and "/no/such/python has no Python" in done.stderr
    program(checkout, "python3", "exit 1")  # too old
    assert bootstrap(checkout).returncode == 2
    assert not (checkout / ".venv").exists()


def test_missing_system_packages_are_named_in_one_line_unless_root(checkout):
    program(checkout, "python3", f'exec {sys.executable} "$@"')
    program(checkout, "id", "echo 1000")
    done = bootstrap(checkout)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(
        "setup: error: system packages are missing; run: sudo apt-get install -y "
    )
    assert "g++" in line.split()
    assert not (checkout / ".venv").exists()


def test_root_installs_them_and_a_failure_shows_what_apt_said(checkout):
    program(checkout, "python3", f'exec {sys.executable} "$@"')
    program(checkout, "id", "echo 0")
    program(
        checkout, "apt-get", 'echo "called: $*"; [ "$1" = update ] || { echo no disk; exit 1; }'
    )
    done = bootstrap(checkout)
    assert done.returncode == 2
    assert "setup: installing system packages: " in done.stdout
    assert "called: update" in done.stderr and "no disk" in done.stderr
    assert "this failed: env DEBIAN_FRONTEND=noninteractive apt-get install" in done.stderr


def test_second_run_ends_at_once_until_something_changes(checkout):
    program(checkout, "python3", f'exec {sys.executable} "$@"')
    program(checkout, "id", "echo 1000")
    stamp = checkout / ".venv/.set-up"
    stamp.parent.mkdir()
    fingerprint = subprocess.run(
        ["bash", "-c", f"cd '{checkout}' && eval \"$(sed -n '/^fingerprint()/,/^}}/p' "
         "scripts/bootstrap.sh)\" && fingerprint"],
        env={"PATH": str(checkout / "bin") + ":/bin:/usr/bin"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    stamp.write_text(fingerprint)
    done = bootstrap(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (checkout / "dexpie_ros/nodes/new_node.py").touch()
    assert "1/3" in bootstrap(checkout).stdout
