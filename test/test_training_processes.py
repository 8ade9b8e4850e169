"""Two processes train one policy (gloo on the CPU), as several GPUs would."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from synthetic import reach
from test_training_loop import config

from dexpie_ros.policy.policy import Policy
from dexpie_ros.training.train import train_actor

HERE = Path(__file__).parent
PROGRAM = f"""
import sys; sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}
import torch.distributed as distributed
from test_training_processes import train
policy = train(sys.argv[1])
print(f"process {{distributed.get_rank()}} of {{distributed.get_world_size()}}: {{policy.name}}")
"""


def train(folder):
    return train_actor(config(), [reach(i, 40) for i in range(3)], None, folder)


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").open()]


def test_two_processes_train_one_policy(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    together, alone = tmp_path / "together", tmp_path / "alone"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(program), str(together)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, cwd=HERE.parent
    )
    assert done.returncode == 0, done.stderr
    for process in (0, 1):
        assert f"process {process} of 2: policy" in done.stdout
    train(alone)
    # One of the two writes; the batch is shared between them, so steps are those of one process,
    # with other noise.
    assert len(losses(together)) == len(losses(alone)) == 3
    assert np.allclose(losses(together), losses(alone), rtol=0.5)
    tcp, _ = Policy.load(together / "policy").sample(np.zeros(15), np.eye(4))
    assert np.isfinite(tcp).all()
