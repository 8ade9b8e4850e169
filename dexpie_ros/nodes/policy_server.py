"""Observations in, action chunks out: runs the actor asynchronously beside the control loop.

Every /control/step carries what will be executed next, so the prefix of an inference is the truth
and not this node's memory of it. On a robot the inference runs in its own thread and a step that
asks meanwhile is counted; in lockstep it runs at once and every step is answered on /policy/status.
"""

from __future__ import annotations

import dataclasses
import queue
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from dexpie_ros.config import ConfigError, config
from dexpie_ros.control.guard import NO_OBSERVATION
from dexpie_ros.control.types import STEP_NS, Chunk, ControlStep, Observation
from dexpie_ros.messages import (
    read_control_step,
    read_image,
    read_objects,
    read_robot_state,
    stamp_ns,
)
from dexpie_ros.nodes.base import ERROR, OK, WARN, ContractNode, status_level
from dexpie_ros.nodes.observations import ObservationBuffer
from dexpie_ros.policy.asynchronous import AsyncConfig, AsyncPolicy
from dexpie_ros.policy.policy import Policy, chosen_device
from dexpie_ros.realtime import prefer_process
from dexpie_ros.runtime import abort, declare_config, run_node


@config
class PolicyServerParameters:
    """Parameters of the node."""

    policy: str = ""
    """Directory of a trained policy."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto: cuda where torch sees a GPU, else cpu."""
    lockstep: bool = False
    inference_delay_steps: int = 2
    """In lockstep: control steps that an inference takes in simulation time."""
    beta: float = -1.0
    """Guidance; negative: as the policy was saved."""
    steps: int = 0
    """Of denoising; 0: as the policy was saved."""
    optimality: float = -1.0
    """I that is asked for, 0 .. 1; negative: as the policy was saved."""
    noise: float = -1.0
    """Scale of the noise that a chunk begins with, 0 .. 1; negative: as the policy was saved."""
    backend: str = ""
    """Of torch.compile for a U-Net (`inductor` on a GPU); empty: none."""
    images: bool = True
    """There are cameras."""
    objects: bool = True
    """A simulator tells where objects are."""
    stale_after_s: float = 0.25
    """Not in lockstep: with a part of the observation older than this nothing is inferred."""
    inference: AsyncConfig = AsyncConfig()


IDLE_PHASE, RUNNING_PHASE = 0, 2
ENOUGH = 20
"""Inferences from which on a percentile of their latency means anything."""


class PolicyServer(ContractNode):
    """Thin shell around `policy.AsyncPolicy`."""

    def __init__(self) -> None:
        super().__init__("policy_server")
        self.parameters = p = declare_config(self, PolicyServerParameters)
        if not p.policy:
            raise ConfigError("policy_server: parameter policy is empty; set policy:=DIRECTORY")
        self._policies: dict[str, Policy] = {}
        try:
            self._policy = self._load(p.policy)
            self._async = self._start_inference()
        except (OSError, ValueError) as error:
            raise ConfigError(f"policy_server: {error}") from None
        self._skipped, self._blind = 0, False
        self._dark: dict[str, str] = {}
        """What their drivers complain of, by camera."""
        self._running, self._scene_ns, self._answered_ns = False, 0, 0
        self._answers: list[tuple[Any, Any]] = []
        self._episode = ""
        spec = self._policy.config.observation
        self._buffer = ObservationBuffer(needs_objects=bool(spec.object_names), cameras=spec.images)
        self._chunk_publisher = self.publisher("/policy/chunk")
        self._status_publisher = self.publisher("/policy/status")
        self.subscribe("/arm/joint_states", lambda m: self._measured("arm", m))
        self.subscribe("/hand/joint_states", lambda m: self._measured("hand", m))
        self.subscribe("/arm/tcp_pose", lambda m: self._measured("tcp", m))
        if spec.object_names:
            self.subscribe("/simulation/state", self._on_objects)
        for camera in spec.images:
            topic = f"/camera/{camera}/color/image_raw"
            self.subscribe(topic, partial(self._on_image, camera))
        self.subscribe("/control/step", self._on_step)
        self.subscribe("/session/state", self._on_session)
        self.serve("/policy/start_episode", self._serve_start)
        if spec.images and not p.lockstep:
            self.subscribe("/diagnostics", self._on_diagnostics)
        self.report_diagnostics(self._diagnose)
        self._steps: queue.SimpleQueue[ControlStep | None] = queue.SimpleQueue()
        self._pending: ControlStep | None = None
        if not p.lockstep:
            prefer_process(realtime=False)  # a chunk must be prompt, but computes long on a CPU
        self._worker = threading.Thread(target=self._work, name="inference")
        self._worker.start()

    def destroy_node(self) -> None:
        self._steps.put(None)
        self._worker.join(timeout=5)
        super().destroy_node()

    def _load(self, directory: str) -> Policy:
        """A policy by its directory, or by the name of one beside the node's own."""
        path = Path(directory)
        if not path.is_dir():
            path = Path(self.parameters.policy).parent / directory
        if str(path) not in self._policies:
            p = self.parameters
            offered = [name for name in ("images", "objects") if getattr(p, name)]
            policy = Policy.load(path, chosen_device(p.device), offered, p.backend)
            what = f"{path.name} ({policy.policy_id}) on {policy.device}"
            self.get_logger().info(f"loaded policy {what}")
            self._policies[str(path)] = policy
        return self._policies[str(path)]

    def _start_inference(self) -> AsyncPolicy:
        p = self.parameters
        changes: dict[str, Any] = {"steps": p.steps} if p.steps else {}
        asked = {"beta": p.beta, "optimality": p.optimality, "noise": p.noise}
        changes |= {name: value for name, value in asked.items() if value >= 0}
        settings = dataclasses.replace(self._policy.config.inference, **changes)
        return AsyncPolicy(self._policy, p.inference, settings)

    # -- inputs ----------------------------------------------------------------------------------
    def _measured(self, stream: str, message: Any) -> None:
        self._buffer.measured(stream, stamp_ns(message.header.stamp), message)
        self._answer_pending()

    def _on_objects(self, message: Any) -> None:
        self._buffer.objects(stamp_ns(message.header.stamp), read_objects(message))
        self._answer_pending()

    def _on_image(self, camera: str, message: Any) -> None:
        self._buffer.image(camera, stamp_ns(message.header.stamp), read_image(message).copy())
        self._answer_pending()

    def _on_step(self, message: Any) -> None:
        if not self._running:
            return
        step = read_control_step(message)
        if step.time_ns < self._scene_ns:
            return  # of the time before the episode
        if step.time_ns == self._answered_ns:
            for publisher, answer in self._answers:  # asked again: they were not heard
                publisher.publish(answer)
            return
        if self.parameters.lockstep:
            self._pending = step
            self._answer_pending()
            return
        if self._look(step.time_ns):
            return
        self._status_publisher.publish(self._status(step, None))
        if self._steps.empty():
            self._steps.put(step)
        else:
            self._skipped += 1

    def _on_diagnostics(self, message: Any) -> None:
        """A camera's driver knows of silence or a pulled cable before its image is too old."""
        for status in message.status:
            camera = status.name.removeprefix("camera_")
            if camera == status.name or camera not in self._policy.config.observation.images:
                continue
            self._dark.pop(camera, None)
            if status_level(status) >= ERROR:
                self._dark[camera] = f"{camera} ({status.message})"
            self._look(self.now_ns())

    def _look(self, now_ns: int) -> str:
        """What is missing of an observation; the arbiter hears at once where that changes."""
        missing = self._missing(now_ns)
        if self._running and bool(missing) != self._blind:
            self._blind = bool(missing)
            self.publish_diagnostics()  # the arbiter holds for it, sooner than for silence
        return missing

    def _missing(self, now_ns: int) -> str:
        oldest = now_ns - round(self.parameters.stale_after_s * 1e9)
        return ", ".join(self._dark.values()) or self._buffer.older_than(oldest)

    def _on_session(self, message: Any) -> None:
        """The episode ended; or this node died during one and is back."""
        if message.phase == IDLE_PHASE:
            self._running = False
        elif (
            message.phase == RUNNING_PHASE
            and message.policy_id
            and not self._episode
            and not self.parameters.lockstep
        ):
            self.get_logger().warning(f"back during {message.episode_id}")
            self._policy = self._load(message.policy_id)
            self._async = self._start_inference()
            self._async.reset(int(message.seed), None)
            self._episode, self._running = message.episode_id, True

    async def _serve_start(self, request: Any, response: Any) -> Any:
        """A new episode: another policy where the request names its directory, and its seed."""
        try:
            if request.policy_id:
                self._policy = self._load(request.policy_id)
            self._async = self._start_inference()
        except (OSError, ValueError) as error:
            response.success, response.message = False, str(error)
            return response
        self._scene_ns = stamp_ns(request.scene_stamp) or self.now_ns()
        self._async.reset(int(request.seed), stamp_ns(request.scene_stamp) or None)
        if (
            not self.parameters.lockstep
        ):  # in lockstep stamps decide, and the scene is already there
            self._buffer.clear()
        self._skipped, self._running, self._pending = 0, False, None
        self._episode = request.episode_id
        response.episode_id, response.message = request.episode_id, await self._scene_missing()
        response.success = self._running = not response.message
        return response

    async def _scene_missing(self, patience_s: float = 10.0) -> str:
        """In lockstep the first observation must be here before the first step; "" once it is.

        The world repeats a state until it is answered, so a late subscription gets it too.
        """
        waited = 0.0
        while (
            self.parameters.lockstep and self._buffer.at(self._scene_ns, read_robot_state) is None
        ):
            if waited >= patience_s:
                missing = self._buffer.missing() or "the scene's first state"
                return f"no observation within {patience_s:g} s: waiting for {missing}"
            await self.pause(0.02)
            waited += 0.02
        return ""

    # -- inference -------------------------------------------------------------------------------
    def _answer_pending(self) -> None:
        """Lockstep: answer the step once the whole observation of its time is here."""
        step = self._pending
        if step is None:
            return
        observation = self._buffer.at(step.time_ns, read_robot_state)
        if observation is not None:
            self._pending = None
            self._answer(step, observation)

    def _work(self) -> None:
        """Robot: infer in this thread from the newest observation not younger than the step."""
        try:
            while (step := self._steps.get()) is not None:
                observation = self._buffer.at(step.time_ns, read_robot_state)
                observation = observation or self._buffer.newest(read_robot_state)
                if observation is not None:
                    self._answer(step, observation)
        except Exception as error:  # noqa: BLE001
            # A thread that ends unseen would leave a node that shows signs of life and no chunks:
            # the robot would hold for ever. As a crash the node is started again.
            abort(error)

    def _answer(self, step: ControlStep, observation: Observation) -> None:
        chunk = self._async.step(step, observation)
        if chunk is not None:
            delay_ns = self.parameters.inference_delay_steps * STEP_NS
            done_ns = step.time_ns + delay_ns if self.parameters.lockstep else self.now_ns()
            chunk = self._async.arrived(chunk, done_ns)
        self._answered_ns, self._answers = step.time_ns, []
        if chunk is not None:
            message = self.messages.action_chunk(chunk, self._episode)
            self._answers.append((self._chunk_publisher, message))
        if self.parameters.lockstep or chunk is not None:
            self._answers.append((self._status_publisher, self._status(step, chunk)))
        for publisher, message in self._answers:
            publisher.publish(message)

    def _status(self, step: ControlStep, chunk: Chunk | None) -> Any:
        statistics = self._async.statistics()
        return self.messages.policy_status(
            step.time_ns,
            policy_id=self._policy.policy_id,
            inferred=chunk is not None,
            prefix_length=chunk.prefix_length if chunk is not None else 0,
            inferences=statistics.inferences,
            skipped=self._skipped,
            latency_s=(statistics.p50_ms / 1e3, statistics.p95_ms / 1e3, statistics.p99_ms / 1e3),
        )

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        statistics = self._async.statistics()
        values = {
            "policy": self._policy.policy_id,
            "inferences": statistics.inferences,
            "skipped": self._skipped,
            "latency_p99_ms": f"{statistics.p99_ms:.1f}",
            "delay_p99_steps": self._async.delay_steps(99),
            "lost_chunks": statistics.lost,
            "mean_prefix_length": f"{statistics.mean_prefix_length:.2f}",
        }
        lockstep = self.parameters.lockstep
        missing = self._buffer.missing() or ("" if lockstep else self._missing(self.now_ns()))
        if self._running and missing:
            return WARN, f"{NO_OBSERVATION}: waiting for {missing}", values
        return self._judge_delay(values)

    def _judge_delay(self, values: dict[str, object]) -> tuple[int, str, dict[str, object]]:
        """WARN where inference takes longer than the prefix that covers it."""
        delay, limit = self._async.delay_steps(99), self.parameters.inference.max_delay
        judged = self.parameters.inference.mode == "async" and not self.parameters.lockstep
        # of a few inferences the slowest is the percentile
        if judged and delay > limit and self._async.statistics().inferences >= ENOUGH:
            return WARN, (
                f"1 inference of 100 takes {delay} control steps, more than max_delay = {limit}: "
                "actions are lost; lower steps, or take a faster device"
            ), values  # fmt: skip
        return OK, "ready", values


def main() -> int:
    return run_node(PolicyServer, images=True)


if __name__ == "__main__":
    sys.exit(main())
