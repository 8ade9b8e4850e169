"""The network of a policy: encoder, condition and denoiser, with its loss and its sampler."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dexpie_ros.policy.bending import bent
from dexpie_ros.policy.conditioning import Conditioner
from dexpie_ros.policy.departure import Departure, Terms
from dexpie_ros.policy.diffusion import Diffusion, Draws, masked_loss, prefix_mask
from dexpie_ros.policy.encoders import Encoder
from dexpie_ros.policy.fast import FastUNet, fold_encoder
from dexpie_ros.policy.guidance import Guidance
from dexpie_ros.policy.mlp import MLPDenoiser
from dexpie_ros.policy.settings import InferenceSettings, PolicyConfig
from dexpie_ros.policy.unet import UNetDenoiser


@dataclass(frozen=True, eq=False)
class Batch:
    """Training windows, normalised, on the device of the network."""

    vector: Tensor
    """(B, D)"""
    actions: Tensor
    """(B, H, 15); slots after the episode's end repeat its last command"""
    valid: Tensor
    """(B,) how many slots lie within the episode"""
    optimality: Tensor
    """(B,) I"""
    weight: Tensor
    """(B,) weight in the loss"""
    images: Tensor | None = None
    """(B, V, 3, S, S) uint8, or features (B, V * F) where those of a frozen encoder are cached"""


class Actor(nn.Module):
    """pi(chunk | observation, I). Calling it computes the training loss."""

    def __init__(self, config: PolicyConfig, encoder: Encoder | None = None) -> None:
        """``encoder`` maps images (B, V, 3, S, S) to features (B, V * F), see `encoders`."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        size = config.observation.size + (encoder.size if encoder is not None else 0)
        self.conditioner = Conditioner(config.denoiser, config.optimality, size)
        make = MLPDenoiser if config.denoiser.kind == "mlp" else UNetDenoiser
        self.denoiser: MLPDenoiser | UNetDenoiser = make(
            config.denoiser, config.action.horizon, self.conditioner.size
        )
        self.diffusion = Diffusion(config.diffusion)
        self._fast: tuple[FastUNet | None, Encoder | None] | None = None

    def prepare(self, backend: str = "") -> None:
        """Lay the weights out for inference; call it after their last change and move.

        ``backend`` of `torch.compile` for the U-Net, empty for none.
        """
        unet, encoder = None, None
        if isinstance(self.denoiser, UNetDenoiser):
            unet = FastUNet(self.denoiser, backend=backend)
        if self.encoder is not None:
            encoder = fold_encoder(self.encoder)
        self._fast = (unet, encoder)

    def features(
        self,
        vector: Tensor,
        images: Tensor | None = None,
        augment: torch.Generator | None = None,
    ) -> Tensor:
        """Observation vector (B, D) and images, as in a batch -> features (B, F).

        ``augment`` draws crops and colours; None looks at the centre.
        """
        if self.encoder is None:
            return vector
        if images is None:
            raise ValueError(f"no images given; trained on {self.config.observation.describe()}")
        encoder = self._fast[1] if self._fast is not None and not self.training else None
        seen: Tensor = images if images.ndim == 2 else (encoder or self.encoder)(images, augment)
        return torch.cat([vector, seen.to(vector.dtype)], dim=-1)

    def forward(self, batch: Batch, draws: Draws, augment: torch.Generator | None = None) -> Tensor:
        """Training loss (a scalar) on one batch: of the slots behind the prefix that are not padding."""
        horizon = self.config.action.horizon
        mask = prefix_mask(draws.delay, horizon)
        noisy = self.diffusion.add_noise(batch.actions, draws.noise, draws.step)
        noisy = torch.where(mask[..., None], batch.actions, noisy)
        features = self.features(batch.vector, batch.images, augment)
        condition = self.conditioner(draws.step, features, batch.optimality, draws.withheld)
        known = mask.to(noisy.dtype)
        output = self.denoiser(noisy, batch.actions, known, condition)
        departure = self._departure(batch.actions, known)
        if departure is not None:
            output = departure.at(*self.diffusion.levels(draws.step))(output, noisy)
        error = output - self.diffusion.target(batch.actions, draws.noise, draws.step)
        inside = prefix_mask(batch.valid, horizon)
        return masked_loss(error, inside & ~mask, batch.weight, self.config.prefix.renormalize)

    def _departure(self, prefix: Tensor, mask: Tensor) -> Departure | None:
        settings = self.config.denoiser
        if not settings.depart_from_prefix:
            return None
        prediction = self.config.diffusion.prediction
        return Departure.of(prefix, mask, settings.depart_ramp, prediction)

    @torch.inference_mode()
    def sample(
        self,
        features: Tensor,
        noise: Tensor,
        prefix: Tensor,
        mask: Tensor,
        settings: InferenceSettings,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """Normalised chunks (B, H, 15) for features (B, F), from ``noise`` (B, H, 15).

        ``prefix`` (B, H, 15) counts where ``mask`` (B, H) is 1; ``fresh`` (steps, B, H, 15) noise
        makes it DDPM. All that depends on the step but not on the chunk is computed before the
        first step.
        """
        asked = mask
        if self.config.prefix.kind == "bent":
            mask = torch.zeros_like(mask)
        guidance = Guidance.of(self.config.optimality.kind, settings.beta)
        fast = self._fast[0] if self._fast is not None else None
        denoiser = fast or self.denoiser
        steps = self.diffusion.plan(settings.steps)[0].to(noise.device)
        withheld = guidance.withheld(len(noise), noise.device)
        wanted = torch.full(withheld.shape, settings.optimality, device=noise.device)
        conditions = self.conditioner.all_steps(
            steps, guidance.repeat(features), wanted, withheld
        )  # fmt: skip
        rows = denoiser.modulations(conditions.flatten(0, 1))
        by_step = list(zip(*(row.split(len(withheld)) for row in rows), strict=True))
        prefix_rows, mask_rows = guidance.repeat(prefix), guidance.repeat(mask)
        local = denoiser.local(prefix_rows, mask_rows)
        departures = self._departures(prefix_rows, mask_rows, steps)

        def predict(x: Tensor, index: int) -> Tensor:
            noisy = guidance.repeat(x)
            out = denoiser.denoise(noisy, local, list(by_step[index]))
            if departures:
                out = departures[index](out, noisy)
            return guidance.join(out)

        chunk = self.diffusion.sample(predict, noise, prefix, mask, settings.steps, fresh)
        return bent(chunk, prefix, asked, self.config.prefix.bend) if asked is not mask else chunk

    def _departures(self, prefix: Tensor, mask: Tensor, steps: Tensor) -> list[Terms]:
        departure = self._departure(prefix, mask)
        if departure is None:
            return []
        levels = zip(*self.diffusion.levels(steps), strict=True)
        return [departure.at(signal, spread) for signal, spread in levels]
