"""Typed settings of a policy: every choice of docs/policy.md is a field here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.policy.observation import ObservationSpec

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


@config
class ActionConfig:
    """The chunk and how actions are normalised."""

    horizon: Count = 24
    """H, steps of 40 ms."""
    position_normalization: Literal["isotropic", "identity"] = "isotropic"
    hand_symmetric: bool = True


@config
class EncoderConfig:
    """Image encoder; unused by a state policy."""

    arch: Literal["resnet18", "resnet34", "resnet50", "small_cnn"] = "resnet18"
    """`small_cnn`: 61 k parameters, for small images on a CPU; has no published weights."""
    weights: str = ""
    """File with R3M weights (.pt as published, or .safetensors); `random` asks for none by name."""
    trainable: bool = True
    shared: bool = True
    """One network for all views, or one per view."""
    normalization: Literal["frozen_batchnorm", "groupnorm"] = "frozen_batchnorm"
    image_size: Count = 224
    random_crop: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each side that random cropping may remove; 0 turns it off."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Brightness, contrast, saturation, hue; zeros turn it off."""

    def __post_init__(self) -> None:
        if self.arch == "small_cnn" and self.weights not in ("", "random"):
            raise ValueError("weights: small_cnn has no published weights; set `random`")
        if not self.trainable and self.normalization == "groupnorm":
            raise ValueError("normalization: a frozen encoder needs frozen_batchnorm")


@config
class DenoiserConfig:
    """The network that denoises a chunk."""

    kind: Literal["unet", "mlp"] = "unet"
    channels: tuple[Count, ...] = (256, 512, 1024)
    """U-Net: channels by level."""
    kernel: Count = 5
    groups: Count = 8
    width: Count = 384
    """MLP: width of the residual trunk."""
    blocks: Count = 3
    modes: int = Field(default=0, ge=0)
    """MLP that predicts the chunk itself: so many smooth modes over the slots; 0: each is free."""
    step_embedding: Count = 128
    vector_embedding: int = Field(default=0, ge=0)
    """Width of a small MLP over the observation; 0 gives it to the network as it is."""
    prefix_conditioning: bool = True
    """Local inputs of the prefix, zero at the start; False: the network must guess where it is."""
    depart_from_prefix: bool = False
    """Predict how the chunk departs from the last prefix action (`policy/departure.py`)."""
    depart_ramp: Count = 1
    """The j-th slot behind the prefix departs by j / depart_ramp of the output, at most by all."""

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel: {self.kernel} is even; take an odd one, such as 5")
        wrong = [c for c in self.channels if c % self.groups]
        if self.kind == "unet" and wrong:
            raise ValueError(f"channels: {wrong} do not divide into {self.groups} groups")


@config
class DiffusionConfig:
    """Noise schedule and sampling (diffusers names)."""

    train_steps: Count = 100
    """T_d."""
    schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"
    prediction: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """ddim: no noise but the first (eta = 0); ddpm: fresh noise at every step but the last."""
    clip_range: float = Field(default=1.0, gt=0.0)
    """The clean chunk is clipped to +-this while sampling; must contain the normalised data."""


@config
class PrefixConfig:
    """How a chunk goes on from the actions under way (docs/policy.md#when-the-policy-is-asked)."""

    max_delay: int = Field(default=4, ge=0)
    """n, steps."""
    kind: Literal["conditioned", "bent"] = "conditioned"
    """conditioned: the network is trained with prefixes and sees them (training-time RTC). bent: it
    never sees one, and its chunk is bent onto the prefix (`policy/bending.py`)."""
    bend: Count = 12
    """bent: R, slots behind the prefix over which the bending fades."""
    keep_prob: Share = 0.9
    renormalize: bool = True
    """Divide the loss by the elements that count; False: by all of them (preset `authors`)."""


@config
class OptimalityConfig:
    """How the optimality I enters the network (docs/policy.md#choosing-the-optimality-i)."""

    kind: Literal["none", "binary", "continuous"] = "continuous"
    embedding: Literal["scaled", "raw"] = "scaled"
    """continuous: scaled sinusoids + MLP + learned null, or raw sinusoids + zeros (`authors`)."""
    scale: float = Field(default=100.0, gt=0.0)
    size: Count = 32
    dropout: Share = 0.3
    """p_m: how often I is replaced by null in training."""


@config
class InferenceSettings:
    """What can be set when a policy is deployed."""

    beta: float = Field(default=1.5, ge=0.0)
    """Guidance; 1 is plain conditioning, 0 the unconditional policy."""
    steps: Count = 10
    optimality: Share = 1.0
    """The I that is asked for."""
    noise: Share = 1.0
    """Scale of the noise that sampling begins with. paper: 1, a chunk drawn from all that was
    learned. 0: the chunk in its middle, the same for the same observation (docs/policy.md)."""


@config
class PolicyConfig:
    """Everything that decides what a policy is, apart from its weights."""

    preset: str = "own"
    """The named choice that these settings started from."""
    observation: ObservationSpec = ObservationSpec()
    action: ActionConfig = ActionConfig()
    encoder: EncoderConfig = EncoderConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    prefix: PrefixConfig = PrefixConfig()
    optimality: OptimalityConfig = OptimalityConfig()
    inference: InferenceSettings = InferenceSettings()

    def __post_init__(self) -> None:
        if self.prefix.max_delay >= self.action.horizon:
            raise ValueError(
                f"prefix.max_delay: {self.prefix.max_delay} leaves nothing of a chunk of "
                f"{self.action.horizon}; lower it"
            )
        departs = self.denoiser.depart_from_prefix
        if self.prefix.kind == "bent" and (departs or self.denoiser.prefix_conditioning):
            raise ValueError(
                "prefix.kind: bent keeps the prefix from the network; set "
                "denoiser.depart_from_prefix and denoiser.prefix_conditioning to false"
            )
        if departs and not self.denoiser.prefix_conditioning:
            # Its output means another thing behind every prefix: it must know where that ends.
            raise ValueError("denoiser.depart_from_prefix: needs prefix_conditioning")
        if self.denoiser.depart_ramp > 1 and not departs:
            raise ValueError("denoiser.depart_ramp: needs depart_from_prefix; leave it at 1")
        modes, smooth = self.denoiser.modes, self.denoiser.kind == "mlp"
        if modes and not (smooth and self.diffusion.prediction == "sample"):
            raise ValueError("denoiser.modes: needs kind mlp and diffusion.prediction sample")
        if modes > self.action.horizon:
            raise ValueError(f"denoiser.modes: {modes} of {self.action.horizon} slots; lower it")
        halvings = 2 ** (len(self.denoiser.channels) - 1)
        if self.denoiser.kind == "unet" and self.action.horizon % halvings:
            raise ValueError(
                f"action.horizon: {self.action.horizon} must divide by {halvings} for a U-Net of "
                f"{len(self.denoiser.channels)} levels"
            )
        if self.inference.steps > self.diffusion.train_steps:
            raise ValueError("inference.steps exceeds diffusion.train_steps; lower it")
