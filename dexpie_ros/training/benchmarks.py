"""Speed of inference and training beside straightforward implementations of the same thing.

The plain versions are kept here and held equal in their numbers: ratios are taken in one run, on
one machine, between runs that alternate, as a median of several.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dexpie_ros.policy.actor import Actor, Batch
from dexpie_ros.policy.asynchronous import AsyncConfig, AsyncPolicy
from dexpie_ros.policy.diffusion import draw, make_scheduler
from dexpie_ros.policy.encoders import RANDOM, build_encoder
from dexpie_ros.policy.normalizer import Normalizer
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy
from dexpie_ros.policy.presets import preset
from dexpie_ros.policy.settings import InferenceSettings
from dexpie_ros.training.loop import Loop
from dexpie_ros.training.train import actor_preset
from dexpie_ros.training.virtual_robot import VirtualRobot


def bench_policy(quick: bool = False) -> dict[str, float]:
    """Figures of the actor on this machine, one thread; ``quick`` takes smaller networks and runs.

    * ``speedup_vs_plain``: a chunk of the U-Net with two views and guidance, against
      :func:`plain_chunk`; ``max_abs_diff`` between the two in normalised actions;
    * ``cpu_chunk_p99_ms`` (and p50): observation to chunk, preset `cpu`;
    * ``stalls``: in 10 000 control steps of virtual time, delays of 0 .. n steps that jump;
    * ``train_speedup_vs_plain``: preset `cpu` against :func:`plain_training`;
    * ``gpu_chunk_p99_ms``: preset `paper` whole, where there is a GPU.
    """
    figures: dict[str, float] = {}
    with one_thread():
        figures |= _unet_latency(quick)
        figures |= _cpu_latency(100 if quick else 1000)
        figures["stalls"] = float(count_stalls(2_000 if quick else 10_000))
        figures |= _training_speed(40 if quick else 200, 1 if quick else 3)
    if torch.cuda.is_available():
        figures |= _gpu_latency(50 if quick else 300)
    return figures


@contextmanager
def one_thread() -> Iterator[None]:
    """Several threads on shared cores collapse; one is what a robot's computer has to spare."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def paper_actor(quick: bool, device: str = "cpu") -> Actor:
    """Preset `paper` with random weights; ``quick`` a quarter as wide, on pictures of 96 x 96."""
    config = preset("paper")
    config = replace(config, encoder=replace(config.encoder, weights=RANDOM))
    if quick:
        config = replace(
            config,
            denoiser=replace(config.denoiser, channels=(64, 128, 256)),
            encoder=replace(config.encoder, image_size=96),
        )
    torch.manual_seed(0)
    actor = Actor(config, build_encoder(config)).eval().requires_grad_(False)
    return actor.to(device)


@torch.inference_mode()
def plain_chunk(
    actor: Actor, vector: Tensor, images: Tensor, noise: Tensor, settings: InferenceSettings
) -> Tensor:
    """A chunk as one would first write it: the whole denoiser twice at every step.

    The pictures are encoded once; the scheduler is diffusers' own.
    """
    features = actor.features(vector, images)
    scheduler = make_scheduler(actor.config.diffusion)
    scheduler.set_timesteps(settings.steps)
    empty, mask = torch.zeros_like(noise), torch.zeros_like(noise[..., 0])
    wanted = torch.full((len(noise),), settings.optimality, device=noise.device)
    x = noise
    for t in scheduler.timesteps:
        step = t[None].to(noise.device).expand(len(noise))
        outputs = []
        for withheld in (True, False):
            null = torch.full((len(noise),), withheld, device=noise.device)
            condition = actor.conditioner(step, features, wanted, null)
            outputs.append(actor.denoiser(x, empty, mask, condition))
        guided = outputs[0] + settings.beta * (outputs[1] - outputs[0])
        x = scheduler.step(guided, t, x, return_dict=False)[0]
    return x


def _unet_latency(quick: bool) -> dict[str, float]:
    actor = paper_actor(quick)
    _learn_noise(actor, 60 if quick else 20)
    fast = copy.deepcopy(actor)
    fast.prepare()
    vector, images, noise = _chunk_inputs(actor)
    settings = actor.config.inference

    def run_plain() -> Tensor:
        return plain_chunk(actor, vector, images, noise, settings)

    def run_fast() -> Tensor:
        return _fast_chunk(fast, vector, images, noise, settings)

    difference = float((run_plain() - run_fast()).abs().max())
    plain, ours = _alternate([run_plain, run_fast], 3 if quick else 7)
    return {
        "speedup_vs_plain": plain / ours,
        "max_abs_diff": difference,
        "unet_chunk_ms": 1e3 * ours,
        "unet_chunk_plain_ms": 1e3 * plain,
    }


def _learn_noise(actor: Actor, steps: int) -> None:
    """A few steps of training on small batches.

    Random weights take the chunk for noise and divide it by sqrt(abar): what differs in the last
    digit would come out several times as large as it does in a network that has learned anything.
    """
    vector, images, _ = _chunk_inputs(actor)
    seen = actor.features(vector, images)[:, vector.shape[1] :].expand(8, -1)
    trained = [p for name, p in actor.named_parameters() if not name.startswith("encoder.")]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, 1e-3)
    generator = torch.Generator().manual_seed(0)
    config, ones = actor.config, torch.ones(8)
    shape = (8, config.action.horizon, 15)
    for _ in range(steps):
        actions = torch.rand(shape, generator=generator) - 0.5
        batch = Batch(vector.expand(8, -1), actions, shape[1] * ones.long(), ones, ones, seen)
        draws = draw(shape, config.diffusion, config.prefix, config.optimality, generator)
        optimizer.zero_grad()
        actor(batch, draws).backward()
        optimizer.step()
    actor.requires_grad_(False)


def _chunk_inputs(actor: Actor) -> tuple[Tensor, Tensor, Tensor]:
    config, device = actor.config, next(actor.parameters()).device
    generator = torch.Generator().manual_seed(0)
    size, views = config.encoder.image_size, len(config.observation.images)
    shape = (1, views, size, size, 3)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    vector = torch.randn(1, config.observation.size, generator=generator)
    noise = torch.randn(1, config.action.horizon, 15, generator=generator)
    return vector.to(device), images.permute(0, 1, 4, 2, 3).to(device), noise.to(device)


def _fast_chunk(
    actor: Actor, vector: Tensor, images: Tensor, noise: Tensor, settings: InferenceSettings
) -> Tensor:
    with torch.inference_mode():
        features = actor.features(vector, images)
    return actor.sample(
        features, noise, torch.zeros_like(noise), torch.zeros_like(noise[..., 0]), settings
    )


def _gpu_latency(chunks: int) -> dict[str, float]:
    """The paper's preset whole, from uint8 pictures on the host to a chunk on the host."""
    actor = paper_actor(False, "cuda")
    vector, images, noise = (value.cpu() for value in _chunk_inputs(actor))
    out: dict[str, float] = {}
    for name, backend in (("gpu_chunk", ""), ("gpu_chunk_compiled", "inductor")):
        actor.prepare(backend)
        times = []
        for _ in range(chunks):
            began = time.perf_counter()
            _fast_chunk(
                actor, vector.cuda(), images.cuda(), noise.cuda(), actor.config.inference
            ).cpu()
            times.append(time.perf_counter() - began)
        p50, p99 = np.percentile(np.array(times[len(times) // 5 :]) * 1e3, [50, 99])
        out |= {f"{name}_p50_ms": float(p50), f"{name}_p99_ms": float(p99)}
    return out


def cpu_policy() -> Policy:
    """Preset `cpu` over proprioception and one object, random weights that stay near no motion."""
    spec = ObservationSpec(("tcp", "hand", "objects"), ("object",))
    config = preset("cpu", spec)
    torch.manual_seed(0)
    actor = Actor(config)
    with torch.no_grad():
        still = torch.zeros(config.action.horizon, 15)
        still[:, [3, 7]] = 2.0
        actor.denoiser.output.bias.copy_(still.flatten())  # type: ignore[union-attr,operator]
    normalizer = Normalizer(0.05, True, np.zeros(spec.size), np.ones(spec.size))
    return Policy(config, actor, normalizer)


def _cpu_latency(chunks: int) -> dict[str, float]:
    """Through `AsyncPolicy`, so with everything between an observation and a chunk."""
    bench = VirtualRobot(AsyncPolicy(cpu_policy(), AsyncConfig()), lambda: 1)
    bench.run(20 * chunks)
    statistics = bench.policy.statistics()
    return {"cpu_chunk_p50_ms": statistics.p50_ms, "cpu_chunk_p99_ms": statistics.p99_ms}


def count_stalls(steps: int, max_delay: int = 4) -> int:
    """Stalls in ``steps`` control steps of virtual time with delays that jump between 0 and n."""
    random = np.random.default_rng(0)
    delays = np.repeat(random.integers(0, max_delay + 1, steps), random.integers(1, 9, steps))
    source = iter(delays.tolist())
    policy = AsyncPolicy(
        cpu_policy(), AsyncConfig(max_delay=max_delay), InferenceSettings(steps=2)
    )  # fmt: skip
    bench = VirtualRobot(policy, lambda: next(source))
    bench.run(steps)
    return bench.stalls


def plain_training(
    actor: Actor, data: SyntheticWindows, steps: int, batch_size: int, bf16: bool = False
) -> None:
    """A loop as one would first write it: DataLoader, AdamW, an average kept tensor by tensor."""
    average = copy.deepcopy(actor)
    optimizer = torch.optim.AdamW(actor.parameters(), 1e-3, betas=(0.95, 0.999))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    loader = torch.utils.data.DataLoader(data, batch_size, shuffle=True, drop_last=True)  # type: ignore[arg-type,var-annotated]
    generator = torch.Generator().manual_seed(0)
    config, done = actor.config, 0
    while done < steps:
        for vector, actions, valid, optimality, weight in loader:
            batch = Batch(
                vector + 0.02 * torch.randn(vector.shape), actions, valid, optimality, weight
            )
            shape = (len(vector), *actions.shape[1:])
            draws = draw(shape, config.diffusion, config.prefix, config.optimality, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = actor(batch, draws)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for mean, value in zip(average.parameters(), actor.parameters()):
                    mean.mul_(0.99).add_(value, alpha=0.01)
            loss.item()
            done += 1
            if done == steps:
                return


class SyntheticWindows:
    """Windows of noise in the shape of a small data set; a Dataset and a `loop.Data`."""

    def __init__(self, count: int, size: int, horizon: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.vector = torch.randn(count, size, generator=generator)
        self.actions = torch.rand(count, horizon, 15, generator=generator) - 0.5
        self.valid = torch.full((count,), horizon)
        self.optimality, self.weight = torch.rand(count, generator=generator), torch.ones(count)

    def __len__(self) -> int:
        return len(self.valid)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        parts = (self.vector, self.actions, self.valid, self.optimality, self.weight)
        return tuple(part[index] for part in parts)

    def batch(self, rows: NDArray[np.int64], generator: torch.Generator) -> Batch:
        index = torch.from_numpy(rows)
        vector = self.vector[index]
        vector = vector + 0.02 * torch.randn(vector.shape, generator=generator)
        return Batch(vector, *self[index][1:])  # type: ignore[index]

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        pass


def _training_speed(steps: int, repeats: int) -> dict[str, float]:
    spec = ObservationSpec(("tcp", "hand", "objects"), ("object",))
    run = actor_preset("cpu", "dexpie", spec)
    settings = replace(run.loop, iterations=steps, log_every=steps)
    data = SyntheticWindows(5000, spec.size, run.policy.action.horizon)

    def ours() -> None:
        Loop(Actor(run.policy), settings).run(data)

    def plain() -> None:
        bf16 = settings.precision == "bf16"  # the same arithmetic in both
        plain_training(Actor(run.policy), data, steps, settings.batch_size, bf16)

    slow, fast = _alternate([plain, ours], repeats)
    samples = steps * settings.batch_size
    return {
        "train_speedup_vs_plain": slow / fast,
        "train_samples_per_s": samples / fast,
        "train_plain_samples_per_s": samples / slow,
    }


def _alternate(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, taken in turns so that a busy moment hits all alike."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for row, function in zip(times, functions, strict=True):
            began = time.perf_counter()
            function()
            row.append(time.perf_counter() - began)
    return [float(np.median(row)) for row in times]
