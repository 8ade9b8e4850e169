#!/usr/bin/env bash
# Sets up all that `make demo` and `make test` need, from nothing but Python, make and git:
#   system packages (installed when root, else named in one line), .venv, Python packages, messages.
# ROS 2 is the sourced installation where there is one, else the Kilted wheels of PyPI.
# Done before and nothing changed since: ends at once.   Variables: PYTHON (interpreter to use).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
LOG=build/setup.log
STAMP=$VENV/.set-up
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 2; }

# Run with the output kept for the case that it fails.
quietly() {
  if ! "$@" >>"$LOG" 2>&1; then
    tail -n 25 "$LOG" >&2
    fail "this failed: $* (all output: $LOG)"
  fi
}

# What the result depends on. The names of the nodes are executables.
fingerprint() {
  {
    pwd
    echo "${ROS_DISTRO:-wheels}"
    ls dexpie_ros/nodes
    find setup.py setup.cfg scripts/bootstrap.sh msg -type f -not -path 'msg/build/*' | LC_ALL=C sort |
      xargs cat
  } | cksum
}

# The Python that .venv was made from, if there is one: once named, it need not be named again.
earlier_python() { cut -d' ' -f1 $VENV/.made-for 2>/dev/null || true; }

is_set_up() {
  [ "$(cat $STAMP 2>/dev/null)" = "$wanted" ] &&
    { [ -z "${PYTHON:-}" ] || [ "$(pick_python)" = "$(earlier_python)" ]; }
}

pick_python() {
  local candidate
  for candidate in ${PYTHON:-${ROS_DISTRO:+python3} $(earlier_python) python3 python3.12 python3.11 \
      python3.10}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
        >/dev/null 2>&1; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  fail "${PYTHON:-this machine} has no Python 3.10, 3.11 or 3.12;" \
    "install one (Debian, Ubuntu: apt-get install python3) or name it: make setup PYTHON=/path/python3.11"
}

# Debian packages that are missing, one per line. $1: the Python to use.
missing_packages() {
  loads() { "$1" -c "import ctypes; ctypes.CDLL('$2')" >/dev/null 2>&1; }
  "$1" -c 'import venv, ensurepip' >/dev/null 2>&1 || echo python3-venv
  "$1" -c 'import os, sysconfig as s, sys
sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' || echo python3-dev
  command -v g++ >/dev/null || echo g++
  command -v setpriv >/dev/null || echo util-linux
  # off-screen OpenGL for the simulated cameras: EGL and, without a GPU, Mesa's software renderer
  if ! loads "$1" libOSMesa.so.8; then
    loads "$1" libEGL.so.1 || echo libegl1
    loads "$1" libOpenGL.so.0 || loads "$1" libGL.so.1 || echo libopengl0
    if ! loads "$1" libEGL_nvidia.so.0; then
      loads "$1" libEGL_mesa.so.0 || echo libegl-mesa0
      [ -n "$(find /usr/lib /usr/lib64 -maxdepth 3 \( -name '*swrast_dri.so' -o -name 'libgallium*' \) \
        2>/dev/null)" ] || echo libgl1-mesa-dri
    fi
  fi
}

install_system_packages() {
  local missing
  missing=$(missing_packages "$1" | tr '\n' ' ')
  [ -n "${missing// /}" ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing system packages: $missing"
    quietly apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    missing=$(missing_packages "$1" | tr '\n' ' ')
    [ -z "${missing// /}" ] || fail "$1 still lacks: $missing (is it this system's own Python?)"
  else
    fail "system packages are missing; run: sudo apt-get install -y $missing"
  fi
}

# The tests of `dexpie web` drive a browser; nothing else needs one, so without it they are skipped.
install_browser() {
  command -v chromium >/dev/null && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing chromium, for the tests of the page"
    { apt-get update -qq &&
      env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium
    } >>"$LOG" 2>&1 && return 0
  fi
  say "chromium is not here: the tests of the page will be skipped (Debian: apt-get install chromium)"
}

make_venv() { # $1: Python, rest: options of venv
  local options=("${@:2}") made_for
  made_for="$1 ${options[*]-}"
  if [ -x $VENV/bin/python ] && [ "$(cat $VENV/.made-for 2>/dev/null)" = "$made_for" ] &&
      $VENV/bin/python -c '' 2>/dev/null; then
    return
  fi
  rm -rf $VENV
  quietly "$1" -m venv ${options[@]+"${options[@]}"} $VENV
  # the pip that comes with Python 3.10 and 3.11 takes many minutes to find versions that fit
  quietly $VENV/bin/pip install --quiet --upgrade 'pip>=24'
  echo "$made_for" >$VENV/.made-for
}

# The device drivers are tested against emulators where these are there; nothing else needs them.
install_hardware_libraries() {
  $VENV/bin/pip install --quiet --prefer-binary "$@" -e '.[hardware]' >>"$LOG" 2>&1 ||
    say "the libraries of the real devices cannot be installed here (see $LOG): going on without"
}

# ROS 2 from PyPI.
set_up_with_wheels() {
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    fail "ROS 2 wheels exist for Linux on x86_64 only; install ROS 2 and source its setup.bash first"
  make_venv "$1"
  say "2/3 Python packages, with ROS 2 Kilted from PyPI (about 2 GB, minutes)"
  quietly $VENV/bin/pip install --quiet -e '.[wheels,web,formats,browser,dev]'
  install_hardware_libraries
  say "3/3 messages"
  quietly $VENV/bin/pip install --quiet --force-reinstall --no-deps ./msg
  echo '# ROS 2 comes from the wheels in .venv: nothing to set.' >$VENV/environment.sh
}

# The sourced ROS 2: its rclpy stays, so NumPy stays on the side of 2.0 that it was built against.
set_up_with_sourced_ros() {
  make_venv "$1" --system-site-packages
  say "2/3 Python packages, beside ROS 2 $ROS_DISTRO"
  "$1" -c 'import numpy; print("numpy<2" if numpy.__version__.startswith("1.") else "numpy>=2")' \
    >$VENV/constraints.txt
  quietly $VENV/bin/pip install --quiet -c $VENV/constraints.txt -e '.[web,formats,browser,dev]'
  install_hardware_libraries -c $VENV/constraints.txt
  say "3/3 messages"
  if command -v colcon >/dev/null; then
    quietly colcon build --base-paths msg --cmake-args "-DPython3_EXECUTABLE=$PWD/$VENV/bin/python"
    echo ". '$PWD/install/local_setup.sh'" >$VENV/environment.sh
  else
    quietly cmake -S msg -B build/dexpie_msgs "-DCMAKE_INSTALL_PREFIX=$PWD/install/dexpie_msgs" \
      "-DPython3_EXECUTABLE=$PWD/$VENV/bin/python"
    quietly cmake --build build/dexpie_msgs --target install
    local python_path
    python_path=$(find "$PWD/install/dexpie_msgs" -type d -name dexpie_msgs -path '*-packages/*')
    cat >$VENV/environment.sh <<END
export AMENT_PREFIX_PATH="$PWD/install/dexpie_msgs:\$AMENT_PREFIX_PATH"
export LD_LIBRARY_PATH="$PWD/install/dexpie_msgs/lib:\${LD_LIBRARY_PATH:-}"
export PYTHONPATH="$(dirname "$python_path"):\${PYTHONPATH:-}"
END
  fi
}

wanted=$(fingerprint)
if is_set_up; then
  exit 0
fi
mkdir -p build
: >"$LOG"
if command -v flock >/dev/null; then
  exec 9>build/.setup.lock
  flock 9 # two of `make demo` and `make test` at once: the second one waits
  if is_set_up; then
    exit 0
  fi
fi
say "1/3 Python and system libraries"
python=$(pick_python)
install_system_packages "$python"
install_browser
rm -f $STAMP
if [ -n "${ROS_DISTRO:-}" ] && "$python" -c 'import rclpy' >/dev/null 2>&1; then
  set_up_with_sourced_ros "$python"
else
  [ -z "${ROS_DISTRO:-}" ] ||
    say "ROS 2 $ROS_DISTRO is sourced, but $python cannot import its rclpy: using the wheels of PyPI"
  set_up_with_wheels "$python"
fi
echo "$wanted" >$STAMP
say "done"
