"""Starts the processes of a graph, watches them and ends them: the core of `dexpie launch`.

    async with Supervisor(stack("collect")) as graph:
        status = await graph.wait()

    with RunningGraph(stack("collect"), log_file="graph.log") as graph:      # without asyncio
        ...

Every node is a process with a session of its own. Stopping sends INT, then TERM, then KILL to its
process group (rclpy traps TERM, so only KILL is sure). If the supervisor itself is killed, the
kernel sends each node TERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import yaml

from dexpie_ros.config import ConfigError
from dexpie_ros.graph import EXIT_CONFIG, SUPERVISOR_VARIABLE, NodeSpec
from dexpie_ros.graph_log import Log, console_log, describe
from dexpie_ros.node_spec import RUN_FOLDER_VARIABLE
from dexpie_ros.realtime import make_ordinary
from dexpie_ros.shared_memory import remove_stale_segments

LAUNCH = "launch"
"""Name under which the supervisor itself writes to the log."""

SETTLED_S = 4.0
"""A required node that does not live so long would only be started over and over."""

_CLEAN = {0, -signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM}


@dataclass(frozen=True)
class Grace:
    """Seconds that a process group has after each signal before the next one comes."""

    interrupt: float = 5.0
    terminate: float = 3.0
    kill: float = 3.0


@dataclass
class NodeState:
    """What became of one node so far."""

    spec: NodeSpec
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    exit_code: int | None = None
    """Of its latest process as a shell counts (128 + signal); None while it runs."""

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.exit_code is None else None


class Supervisor:
    """Runs ``specs`` between entering and leaving an ``async with`` block.

    Args:
        specs: the nodes; their names must differ.
        log: gets every line that a node writes; prints ``[name] line`` unless given.
        grace: how patiently nodes are stopped.

    Raises (on entering):
        ConfigError: two nodes of one name, or a module that is not installed. Nothing was started.
    """

    def __init__(
        self, specs: Sequence[NodeSpec], log: Log | None = None, grace: Grace | None = None
    ) -> None:
        self.nodes = {spec.name: NodeState(spec) for spec in specs}
        self.exit_code = 0
        """0, or how the first node that failed ended."""
        self.failed = ""
        """Name of that node."""
        self._specs = tuple(specs)
        self._write = log or console_log(max((len(spec.name) for spec in specs), default=0))
        self._mute = False
        self._grace = grace or Grace()
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._cleanup = contextlib.ExitStack()

    async def __aenter__(self) -> Supervisor:
        check(self._specs)
        removed = remove_stale_segments()
        if removed:
            self._log(LAUNCH, f"removed {removed} shared memory files that dead processes left")
        folder = Path(
            self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="dexpie-launch-"))
        )
        self._log(LAUNCH, f"starting {', '.join(spec.name for spec in self._specs)}")
        for spec in self._specs:
            file = folder / f"{spec.full_name.strip('/').replace('/', '.')}.yaml"
            file.write_text(yaml.safe_dump(spec.parameter_yaml()), encoding="utf-8")
            command = node_command(spec, str(file))
            keep = self._keep(self.nodes[spec.name], command, str(folder))
            self._tasks.append(asyncio.create_task(keep, name=spec.name))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        try:
            await self.wait()
        finally:
            self._cleanup.close()

    async def wait(self) -> int:
        """Until the graph has ended: a required node ended, all ended, or :meth:`stop`."""
        if self._tasks:
            done, running = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
            if running:  # one could not be started or watched: the others must not stay behind
                self.stop()
                await asyncio.wait(running)
            for task in done:
                task.result()
        return self.exit_code

    def stop(self) -> None:
        """Ask every node to end; does not wait."""
        self._ending.set()

    def kill(self) -> None:
        """End every node without further patience; does not wait."""
        self._ending.set()
        self._hurry.set()

    @property
    def ending(self) -> bool:
        """True from the first reason to stop on."""
        return self._ending.is_set()

    async def _keep(self, state: NodeState, command: list[str], folder: str) -> None:
        """Start one node, start it again as often as its spec says, and end it in the end."""
        spec = state.spec
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            SUPERVISOR_VARIABLE: str(os.getpid()),
            RUN_FOLDER_VARIABLE: folder,
            **spec.env,
        }
        while not self._ending.is_set():
            state.exit_code = None
            process = state.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
            make_ordinary(process.pid)
            began = time.monotonic()
            reading = asyncio.create_task(self._read(spec.name, process))
            ended = asyncio.create_task(process.wait())
            try:
                await _first(ended, self._ending)
                asked = self._ending.is_set() and not ended.done()
                if asked:
                    await self._end(spec, process, ended)
            finally:
                # children that outlive their leader would keep devices, ports and the pipe open
                _signal_group(process.pid, signal.SIGKILL)
            await asyncio.wait({reading}, timeout=2.0)
            reading.cancel()
            # None: even KILL did not end it in time (it hangs in the kernel), which is no success
            code = -signal.SIGKILL if process.returncode is None else process.returncode
            state.exit_code = code if code >= 0 else 128 - code
            lived = time.monotonic() - began
            if not asked and not self._ending.is_set() and self._starts_again(state, lived):
                state.restarts += 1
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), spec.respawn_delay)
                continue
            self._judge(state, code, asked)
            return

    def _starts_again(self, state: NodeState, lived: float) -> bool:
        spec, code = state.spec, state.exit_code
        if not spec.starts_again(code or 0):
            if spec.respawn and code == EXIT_CONFIG:
                self._log(LAUNCH, f"{spec.name} cannot use its configuration: not started again")
            return False
        if spec.required and lived < SETTLED_S:
            self._log(LAUNCH, f"{spec.name} ended {lived:.1f} s after its start: not started again")
            return False
        self._log(
            LAUNCH, f"{spec.name} ended ({describe(code)}); again in {spec.respawn_delay:g} s"
        )
        return True

    def _judge(self, state: NodeState, code: int, asked: bool) -> None:
        spec = state.spec
        if asked and code in _CLEAN:
            return
        if asked or code or spec.required:
            self._log(LAUNCH, f"{spec.name} ended ({describe(state.exit_code)})")
        if (asked or spec.required or spec.respawn) and state.exit_code and not self.failed:
            self.exit_code, self.failed = state.exit_code, spec.name
        if spec.required and not self._ending.is_set():
            self._log(LAUNCH, f"{spec.name} is required: ending the graph")
            self._ending.set()

    async def _end(
        self, spec: NodeSpec, process: asyncio.subprocess.Process, ended: asyncio.Task[int]
    ) -> None:
        for step, patience in (
            (signal.SIGINT, self._grace.interrupt),
            (signal.SIGTERM, self._grace.terminate),
            (signal.SIGKILL, self._grace.kill),
        ):
            if self._hurry.is_set() and step != signal.SIGKILL:
                continue
            _signal_group(process.pid, step)
            # nothing can hurry a process that was killed: its exit status must be waited for
            hurry = self._hurry if step != signal.SIGKILL else asyncio.Event()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_first(ended, hurry), patience)
            if ended.done():
                return
            if not hurry.is_set():
                self._log(LAUNCH, f"{spec.name} did not end within {patience:g} s of {step.name}")

    def _log(self, name: str, line: str) -> None:
        if self._mute:
            return
        try:
            self._write(name, line)
        except OSError as error:  # a full disk or a closed pipe must not block the nodes
            self._mute = True
            print(f"launch: the log cannot be written any more: {error}", file=sys.stderr)

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        rest = b""
        while block := await process.stdout.read(65536):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self._log(name, line.decode(errors="replace"))
            if len(rest) > 1 << 20:  # no line; do not collect for ever
                self._log(name, rest.decode(errors="replace"))
                rest = b""
        if rest:
            self._log(name, rest.decode(errors="replace"))


def check(specs: Sequence[NodeSpec]) -> None:
    """Raise ConfigError for what can be known to fail before anything is started."""
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two nodes are called {name}; names in a graph must differ")
    for spec in specs:
        try:
            found = find_spec(spec.module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ConfigError(
                f"node {spec.name}: its module {spec.module} is not installed; "
                "install this package again or leave the node out of the stack"
            )


def node_command(spec: NodeSpec, parameter_file: str) -> list[str]:
    """The whole command line of a node's process."""
    python = [sys.executable, "-m", spec.module]
    return [*_dies_with_parent(), *python, *spec.command_line(parameter_file)]


def _dies_with_parent() -> list[str]:
    # prctl(PR_SET_PDEATHSIG) from outside: doing it between fork and exec (preexec_fn) can deadlock
    # in a process with threads
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def run(specs: Sequence[NodeSpec], log: Log | None = None, grace: Grace | None = None) -> int:
    """Run a graph in the foreground until it ends or Ctrl-C; returns the exit code.

    The first Ctrl-C (or TERM, or HUP) ends it with patience, the second one without.
    """

    async def main() -> int:
        loop = asyncio.get_running_loop()
        graph = Supervisor(specs, log, grace)

        def interrupt() -> None:
            graph.kill() if graph.ending else graph.stop()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt)
        async with graph:
            return await graph.wait()

    return asyncio.run(main())


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


async def _first(task: asyncio.Task[int], event: asyncio.Event) -> None:
    """Until the task is done or the event set; cancelling this leaves the task alone."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
