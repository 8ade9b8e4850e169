"""Episodes on the live graph: processes on real DDS, driven through the session's services."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from dexpie_ros.config import to_dict, write_atomic
from dexpie_ros.demo.settings import DemoConfig, laboratory
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.decoding import decode_all
from dexpie_ros.graph import stack
from dexpie_ros.messages import stamp_ns
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.running_graph import RunningGraph
from dexpie_ros.simulation.lockstep import Task


@dataclass(frozen=True)
class Scene:
    """What the recorded simulation itself says of an episode."""

    steps: int
    success_step: int | None
    """First control step at which the goal was reached and held."""
    contact: bool


@contextmanager
def live_graph(
    folder: Path, settings: DemoConfig, policy: str | Path = "", realtime: bool = False
) -> Iterator[SessionClient]:
    """The whole stack as processes; yields a client once it is ready, ends every process after."""
    parameters = folder / "live_parameters.yaml"
    write_atomic(parameters, yaml.safe_dump(_parameters(settings)))
    specs = stack(
        "deploy" if policy else "collect",
        sim=True,
        task=settings.task,
        directory=str(folder / "episodes"),
        rtf=1.0 if realtime else 0.0,
        lockstep=not realtime,
        seed=settings.seed,
        device="cpu",  # as the lockstep runner: an episode here is then its twin's, bit for bit
        parameters=str(parameters),
        **({"policy": str(policy)} if policy else {}),
    )
    with RunningGraph(specs, log_file=folder / "graph.log") as graph:
        with SessionClient(watch=graph.check) as client:
            client.wait_ready(nodes=[spec.name for spec in specs])
            yield client


def _parameters(settings: DemoConfig) -> dict[str, object]:
    lab = laboratory(settings)

    def section(**values: object) -> dict[str, object]:
        return {"ros__parameters": values}

    return {
        "simulated_cell": section(
            disturbances=to_dict(lab.cell)["disturbances"], bottle=to_dict(lab.cell)["bottle"]
        ),
        "simulated_operator": section(
            operator={
                "limit": lab.operator.limit,
                "correction_limit": lab.operator.correction_limit,
                "style": {"mess": lab.operator.style.mess},
                "correction_style": {"mess": lab.operator.correction_style.mess},
                "cell": {"bottle": to_dict(lab.cell)["bottle"]},
            }
        ),
    }  # fmt: skip


def run_live(client: SessionClient, task: Task, policy_name: str = "") -> None:
    """One episode from start to verdict."""
    client.start(
        task.kind,
        seed=task.seed,
        stage=task.stage,
        pair_id=task.pair_id,
        episode_id=task.episode_id,
        policy_id=policy_name,
        note={**task.note, "made_by": "live"},
    )
    client.wait_end()


def read_scene(directory: str | Path) -> Scene:
    """Success, contact and length from the bag's /simulation/state, within the control steps."""
    bag = BagReader(find_bag(directory))
    steps = {
        stamp_ns(m.header.stamp)
        for m in decode_all(bag, "/control/step", "dexpie_msgs/msg/ControlStep")
    }
    states = {
        stamp_ns(m.header.stamp): m
        for m in decode_all(bag, "/simulation/state", "dexpie_msgs/msg/SimulationState")
    }
    first = min(steps)
    inside = [(t, states[t]) for t in sorted(steps) if t in states]
    reached = [t for t, m in inside if m.success]
    success = round((reached[0] - first) / 40e6) if reached else None
    return Scene(len(steps), success, any(m.contact for _, m in inside))


def control_periods_ms(directory: str | Path) -> np.ndarray:
    """Time between control steps as they reached the recorder (wall clock), ms."""
    bag = BagReader(find_bag(directory))
    if "/control/step" not in bag.messages:
        return np.zeros(0)
    times = np.array(bag.messages["/control/step"].publish_time_ns, np.int64)
    return np.diff(times) * 1e-6


def latencies_ms(directory: str | Path) -> np.ndarray:
    """Inference time of every chunk of a live episode, ms."""
    bag = BagReader(find_bag(directory))
    chunks = decode_all(bag, "/policy/chunk", "dexpie_msgs/msg/ActionChunk")
    return np.array([stamp_ns(chunk.latency) * 1e-6 for chunk in chunks])
