"""A graph beside synchronous code: the demo, experiments and tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from types import TracebackType

from dexpie_ros.graph import NodeSpec
from dexpie_ros.graph_log import FileLog, Log, console_log, describe
from dexpie_ros.supervisor import Grace, Supervisor


class GraphFailed(RuntimeError):
    """The graph ended, or a node of it failed, while it was still needed."""


class RunningGraph:
    """Context manager: the graph runs inside the block, supervised from a thread.

    Args:
        specs: the nodes.
        log_file: gets all that they write, appended.
        console: also print it.
        grace: how patiently they are stopped.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        log_file: str | Path | None = None,
        console: bool = False,
        grace: Grace | None = None,
    ) -> None:
        width = max((len(spec.name) for spec in specs), default=0)
        self._console = console_log(width) if console else _no_log
        self.log_file = Path(log_file) if log_file else None
        self._specs, self._grace = tuple(specs), grace
        self._started: Future[Supervisor] = Future()
        self._result: Future[int] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def __enter__(self) -> RunningGraph:
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def supervisor(self) -> Supervisor:
        """State of the nodes; read only."""
        return self._started.result()

    @property
    def running(self) -> bool:
        return not self._result.done()

    def wait(self, timeout: float | None = None) -> int | None:
        """Exit code of the graph once it has ended; None if it still runs after ``timeout`` s."""
        try:
            return self._result.result(timeout)
        except FutureTimeout:
            return None

    def check(self) -> None:
        """Raise GraphFailed, with what to look at, if the graph has ended."""
        if self.running:
            return
        code, failed = self._result.result(), self.supervisor.failed
        who = f"node {failed} failed" if failed else "a required node ended"
        where = f"; its log is in {self.log_file}" if self.log_file else ""
        raise GraphFailed(f"the graph has ended: {who} ({describe(code)}){where}")

    def stop(self) -> int:
        """End all nodes and wait for it; returns the exit code. May be called again."""
        if self._loop is not None and self.running:
            self._loop.call_soon_threadsafe(self.supervisor.stop)
        try:
            self._thread.join()
        except KeyboardInterrupt:  # no more patience
            if self._loop is not None and self.running:
                self._loop.call_soon_threadsafe(self.supervisor.kill)
            self._thread.join()
            raise
        return self._result.result()

    def _run(self) -> None:
        log: Log = self._console

        async def main() -> int:
            self._loop = asyncio.get_running_loop()
            async with Supervisor(self._specs, log, self._grace) as supervisor:
                self._started.set_result(supervisor)
                return await supervisor.wait()

        try:
            if self.log_file is not None:
                log = FileLog(self.log_file, self._console)
            code = asyncio.run(main())
        except BaseException as error:  # noqa: BLE001  raised where it is asked for
            if not self._started.done():
                self._started.set_exception(error)
            self._result.set_exception(error)
        else:
            self._result.set_result(code)
        finally:
            if isinstance(log, FileLog):
                log.close()


def _no_log(name: str, line: str) -> None:
    """What nodes write goes nowhere."""
