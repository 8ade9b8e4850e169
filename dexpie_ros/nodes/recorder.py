"""One rosbag2 per episode: raw subscriptions into an `episodes.Recording`, which does the rest.

Messages are never decoded here; what DDS delivered is what lies in the bag.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

import rclpy.subscription
from pydantic import Field

from dexpie_ros import contract
from dexpie_ros.config import config
from dexpie_ros.episodes import health
from dexpie_ros.episodes.decoding import has_header, header_stamp_ns
from dexpie_ros.episodes.episode import EpisodeError, EpisodeInfo
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.recording import ENDED_EARLY, Recording, RecordingConfig
from dexpie_ros.messages import stamp_ns
from dexpie_ros.nodes.base import ERROR, OK, WARN, ContractNode
from dexpie_ros.runtime import declare_config, run_node

IDLE_PHASE = 0
FIGURES_OF = ("intervention_arbiter", "policy_server")
"""Nodes whose figures are kept with an episode."""
MESSAGES_BEHIND, IMAGES_BEHIND = 2000, 200
"""Messages a subscription may fall behind before DDS drops the oldest."""
LATE_NS = 300_000_000
"""A message that is older when it is received: there is more behind it."""
CATCH_UP_S = 3.0
TELLS_WHEN_SENT = hasattr(rclpy.subscription, "MessageInfo")
"""Jazzy or later."""


@config
class RecorderParameters(RecordingConfig):
    """Parameters of the node, with those of a recording."""

    directory: str = "outputs/episodes"
    images: Literal["jpeg", "raw", "none"] = "jpeg"
    sim: bool = False
    quiet_s: float = Field(0.1, ge=0, le=10.0)
    """After the end is asked for: messages still on their way are waited for this long."""


class Recorder(ContractNode):
    """Records between /recorder/start_episode and /recorder/end_episode, and the moment before."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.parameters = p = declare_config(self, RecorderParameters)
        topics = contract.recorded_topics(p.images)
        self._recording = Recording(topics, p, self._warn)
        self._figures: dict[str, dict[str, str]] = {}
        """Of the nodes that make the timing, as they last said."""
        self._lag_ns = 0
        self._simulated_time = bool(self.get_parameter("use_sim_time").value)
        for topic in topics:
            self._subscribe_raw(topic)
        self.subscribe("/diagnostics", self._on_diagnostics)
        self.subscribe("/session/state", self._on_session)
        self.serve("/recorder/start_episode", self._serve_start)
        self.serve("/recorder/end_episode", self._serve_end)
        self.report_diagnostics(self._diagnose)

    def destroy_node(self) -> None:
        if self._recording.recording is not None:
            self._close("aborted", "recorder stopped")
        super().destroy_node()

    def _subscribe_raw(self, topic: contract.Topic) -> None:
        state, image = topic.qos is contract.Qos.STATE, "Image" in topic.type
        depth = 1 if state else IMAGES_BEHIND if image else MESSAGES_BEHIND
        sensor, stamped = topic.qos is contract.Qos.SENSOR, has_header(topic.type)

        def receive(data: bytes, info: Any) -> None:
            now_ns = self.now_ns()
            stamp = header_stamp_ns(data) if stamped else 0
            if sensor:
                self._lag_ns = max(self._lag_ns, now_ns - stamp if stamp else 0)
            published = stamp if stamp > 0 else self._sent_ns(info) or now_ns
            self._recording.receive(topic.name, data, now_ns, published)

        def take_old(data: bytes) -> None:
            take(data, None)

        def take(data: bytes, info: Any) -> None:
            receive(data, info)
            # What has piled up behind it is taken at once: waiting for all topics anew for each
            # message costs half a millisecond, and a recorder that is late would only get later.
            for _ in range(depth):
                with handle:
                    item = handle.take_message(subscription.msg_type, True)
                if item is None:
                    return
                receive(*item)

        callback = take if TELLS_WHEN_SENT else take_old
        subscription = self.subscribe(topic.name, callback, raw=True, depth=depth)
        handle = subscription.handle

    def _sent_ns(self, info: Any) -> int:
        """When a message without a stamp was sent; 0 where that is not known in ROS time.

        DDS tells it by the clock of the machine: beside a simulation's it would be a second clock in
        the same bag.
        """
        if info is None or self._simulated_time:
            return 0
        return int(info["source_timestamp"] if isinstance(info, dict) else info.source_timestamp)

    async def _catch_up(self) -> None:
        """Until what was said before now has been received."""
        await self.pause(self.parameters.quiet_s)
        end = time.monotonic() + CATCH_UP_S
        while time.monotonic() < end:
            self._lag_ns = 0
            await self.pause(0.05)
            if self._lag_ns < LATE_NS:
                return
        self.get_logger().warning(
            f"still {self._lag_ns * 1e-9:.1f} s behind the streams: this machine is too busy, or a "
            "clock is off; the last moments may be missing"
        )

    def _warn(self, text: str) -> None:
        """Called by the writer's thread while an episode runs."""
        self.get_logger().warning(text)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name in FIGURES_OF:
                self._figures[status.name] = {v.key: v.value for v in status.values}

    def _on_session(self, message: Any) -> None:
        running = self._recording.recording
        if message.phase == IDLE_PHASE and not message.episode_id and running is not None:
            self.get_logger().warning("the session began anew: its episode is aborted")
            self._close("aborted", "session restarted")

    # -- services --------------------------------------------------------------------------------
    def _serve_start(self, request: Any, response: Any) -> Any:
        response.success = False
        directory = Path(request.directory or self.parameters.directory) / request.episode_id
        scene_ns = stamp_ns(request.scene_stamp)
        try:
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
            start_ns = scene_ns or self.now_ns()
            self._recording.start(directory, info, start_ns, new_scene=scene_ns > 0)
        except (EpisodeError, ValueError, OSError) as error:
            response.message = str(error)
            return response
        self._figures = {}
        response.success, response.episode_id = True, request.episode_id
        return response

    async def _serve_end(self, request: Any, response: Any) -> Any:
        asked_for = self._recording.recording
        if asked_for is None:
            response.success, response.message = False, "no episode is being recorded"
            return response
        await self._catch_up()
        running, directory = self._recording.recording, self._recording.directory
        if running is not asked_for or directory is None:  # nor is it another one by now
            response.success, response.message = False, "the episode was aborted meanwhile"
            return response
        response.episode_id = asked_for.episode_id
        if request.discard:
            self._recording.discard()
            response.success = True
            return response
        response.directory = str(directory)
        response.success, response.message = self._close(request.outcome, request.cause)
        return response

    def _close(self, outcome: str, cause: str) -> tuple[bool, str]:
        """Ends the running episode: whether all of it is there, and how well it arrived."""
        recording = self._recording
        directory = recording.directory
        assert directory is not None
        if recording.error:
            outcome, cause = "aborted", recording.error
        try:
            recording.end(outcome, cause, {"nodes": self._figures} if self._figures else {})
            content = read_episode_file(directory)
        except (OSError, EpisodeError) as error:
            self.get_logger().error(str(error))
            return False, str(error)
        assert content is not None  # just written
        text = health.summary(content)
        self.get_logger().info("\n".join([text, *health.table(content)]))
        return not recording.error, f"{ENDED_EARLY}: {recording.error}" if recording.error else text

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        recording = self._recording
        running = recording.recording
        if running is None:
            return OK, "idle", {}
        values: dict[str, object] = {**recording.received, "dropped": recording.dropped}
        if recording.error:
            return ERROR, f"{ENDED_EARLY}: {recording.error}", values
        if recording.troubles:
            return WARN, "; ".join(recording.troubles), values
        return OK, f"recording {running.episode_id}", values


def main() -> int:
    return run_node(Recorder, images=True)


if __name__ == "__main__":
    sys.exit(main())
