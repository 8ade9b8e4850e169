"""One rosbag2 per episode: raw subscriptions, a queue, one writer thread.

Messages are never decoded here; what DDS delivered is what lies in the bag.
"""

from __future__ import annotations

import json
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

from dexpie_ros import contract
from dexpie_ros.config import config
from dexpie_ros.episodes.episode import EpisodeError, EpisodeInfo
from dexpie_ros.episodes.writer import EpisodeWriter, WriterConfig
from dexpie_ros.nodes.base import ERROR, OK, WARN, ContractNode
from dexpie_ros.runtime import declare_config, run_node

IDLE_PHASE = 0
FIGURES_OF = ("intervention_arbiter", "policy_server")
"""Nodes whose figures are kept with an episode."""
QUEUE_DEPTH = 200
"""Messages a subscription may fall behind before DDS drops the oldest."""


@config
class RecorderParameters:
    """Parameters of the node."""

    directory: str = "outputs/episodes"
    images: Literal["jpeg", "raw", "none"] = "jpeg"
    sim: bool = False
    minimum_free_gb: float = 1.0
    """Less free disk than this and no episode is started; a running one is ended."""
    quiet_s: float = 0.1
    """After the end is asked for: messages still on their way are waited for this long."""
    writer: WriterConfig = WriterConfig()


class Recorder(ContractNode):
    """Records between /recorder/start_episode and /recorder/end_episode."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.parameters = declare_config(self, RecorderParameters)
        self._writer: EpisodeWriter | None = None
        self._queue: queue.SimpleQueue[tuple[str, bytes, int, int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._newest: dict[str, tuple[bytes, int, int]] = {}
        """By topic: what an episode needs that was said before it began."""
        self._error = ""
        self._late: list[str] = []
        self._topics = contract.recorded_topics(self.parameters.images)
        for topic in self._topics:
            self._subscribe_raw(topic)
        self._figures: dict[str, dict[str, str]] = {}
        """Of the nodes that make the timing, as they last said."""
        self.subscribe("/diagnostics", self._on_diagnostics)
        self.subscribe("/session/state", self._on_session)
        self.serve("/recorder/start_episode", self._serve_start)
        self.serve("/recorder/end_episode", self._serve_end)
        self.report_diagnostics(self._diagnose)

    def destroy_node(self) -> None:
        if self._writer is not None:
            self.get_logger().warning(f"stopped during {self._writer.info.episode_id}: aborted")
            self._close("aborted", "recorder stopped", discard=False)
        super().destroy_node()

    def _subscribe_raw(self, topic: contract.Topic) -> None:
        state = topic.qos is contract.Qos.STATE
        keep = state or topic.qos is contract.Qos.SENSOR or topic.name == "/simulation/state"

        def take(data: bytes) -> None:
            times = self.now_ns(), time.time_ns()
            if keep:
                self._newest[topic.name] = (data, *times)
            if self._writer is not None:
                self._queue.put((topic.name, data, *times))

        self.subscribe(topic.name, take, raw=True, depth=1 if state else QUEUE_DEPTH)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name in FIGURES_OF:
                self._figures[status.name] = {v.key: v.value for v in status.values}

    def _on_session(self, message: Any) -> None:
        if message.phase == IDLE_PHASE and not message.episode_id and self._writer is not None:
            self.get_logger().warning("the session began anew: its episode is aborted")
            self._close("aborted", "session restarted", discard=False)

    # -- services --------------------------------------------------------------------------------
    def _serve_start(self, request: Any, response: Any) -> Any:
        response.success = False
        if self._writer is not None:
            response.message = f"still recording {self._writer.info.episode_id}; end it first"
            return response
        directory = Path(request.directory or self.parameters.directory) / request.episode_id
        try:
            self._require_space(directory)
            info = EpisodeInfo(
                episode_id=request.episode_id,
                kind=request.kind,
                task=request.task,
                stage=request.stage,
                seed=request.seed,
                policy_id=request.policy_id,
                pair_id=request.pair_id,
                note=json.loads(request.note_json) if request.note_json else {},
                simulated=self.parameters.sim,
            )
            writer = EpisodeWriter(directory, info, self._topics, self.parameters.writer)
        except (EpisodeError, ValueError, OSError) as error:
            response.message = str(error)
            return response
        self._error, self._late, self._figures = "", [], {}
        self._queue = queue.SimpleQueue()
        # The scene of the first control step is published before the step is asked for.
        for name, item in self._newest.items():
            self._queue.put((name, *item))
        self._writer = writer
        self._thread = threading.Thread(target=self._write, args=(writer, self._queue))
        self._thread.start()
        response.success, response.episode_id = True, request.episode_id
        return response

    async def _serve_end(self, request: Any, response: Any) -> Any:
        if self._writer is None:
            response.success, response.message = False, "no episode is being recorded"
            return response
        await self.pause(self.parameters.quiet_s)
        directory = self._writer.directory
        response.episode_id = self._writer.info.episode_id
        error = self._close(request.outcome, request.cause, request.discard)
        response.success, response.message = not error, error
        response.directory = "" if request.discard else str(directory)
        return response

    # -- writing ---------------------------------------------------------------------------------
    def _write(self, writer: EpisodeWriter, messages: queue.SimpleQueue[Any]) -> None:
        checked = time.monotonic()
        while True:
            try:
                item = messages.get(timeout=0.5)
            except queue.Empty:
                writer.flush_if_due()
                continue
            if item is None:
                return
            if self._error:
                continue
            try:
                writer.write(*item)
                if time.monotonic() - checked > 1.0:
                    checked = time.monotonic()
                    self._late = writer.late(item[2])
                    self._require_space(writer.directory)
            except (OSError, EpisodeError) as error:
                self._error = str(error)
                self.get_logger().error(f"{writer.info.episode_id}: {error}; the bag ends here")

    def _close(self, outcome: str, cause: str, discard: bool) -> str:
        """Ends the running episode; returns what went wrong, or nothing."""
        writer, thread = self._writer, self._thread
        assert writer is not None and thread is not None
        self._writer = None
        self._queue.put(None)
        thread.join()
        try:
            if discard:
                writer.discard()
            else:
                statistics = {"nodes": self._figures, "queue_error": self._error}
                writer.finish(outcome, cause, {k: v for k, v in statistics.items() if v})
        except (OSError, EpisodeError) as error:
            return str(error)
        return self._error

    def _require_space(self, directory: Path) -> None:
        existing = directory
        while not existing.exists():
            existing = existing.parent
        free = shutil.disk_usage(existing).free * 1e-9
        if free < self.parameters.minimum_free_gb:
            raise EpisodeError(
                f"{existing}: only {free:.2f} GB free, less than minimum_free_gb = "
                f"{self.parameters.minimum_free_gb:g}; make room before recording"
            )

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        writer = self._writer
        if writer is None:
            return OK, "idle", {}
        values = {
            name: stream.received for name, stream in writer.streams.items() if stream.received
        }
        if self._error:
            return ERROR, self._error, dict(values)
        if self._late:
            return WARN, f"silent: {', '.join(self._late)}", dict(values)
        return OK, f"recording {writer.info.episode_id}", dict(values)


def main() -> int:
    return run_node(Recorder)


if __name__ == "__main__":
    sys.exit(main())
