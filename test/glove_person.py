"""A person who copies the calibration motion with a glove: synergies, own gains, noise, reaction."""

import numpy as np

from dexpie_ros.control.calibration_motion import CalibrationMotion, CalibrationRecording
from dexpie_ros.control.hand_geometry import thumb_distances
from dexpie_ros.control.retargeting import ERGONOMICS

GAINS = {"Pinky": 65.0, "Ring": 70.0, "Middle": 75.0, "Index": 85.0}


def angles_of(hand: np.ndarray, rng: np.random.Generator, gains: np.ndarray) -> dict[str, float]:
    """Glove values for intended openings (6,): how far the base joint bends depends on the thumb.

    Opposing the thumb, people bend the middle joints more and the base joints less. A linear map of
    the base joint alone cannot follow that; all three joints of the finger together can.
    """
    flexion = 1.0 - hand
    opposed = flexion[5]
    values = {}
    for index, finger in enumerate(("Pinky", "Ring", "Middle", "Index")):
        bent = flexion[index]
        base = bent**1.3 * (1.0 - 0.4 * opposed)
        far = bent**0.8 * (1.0 + 0.2 * opposed)
        values[f"{finger}Spread"] = 5.0 * (1.0 - bent)
        values[f"{finger}MCPStretch"] = 5.0 + GAINS[finger] * gains[index] * base
        values[f"{finger}PIPStretch"] = 8.0 + 90.0 * gains[index] * far
        values[f"{finger}DIPStretch"] = 4.0 + 55.0 * gains[index] * far
    bend = flexion[4]
    values["ThumbMCPSpread"] = 35.0 - 38.0 * gains[5] * opposed**0.8 - 6.0 * bend
    values["ThumbMCPStretch"] = -8.0 + 60.0 * gains[4] * bend**1.2 + 12.0 * opposed
    values["ThumbPIPStretch"] = 5.0 + 50.0 * bend + 8.0 * opposed
    values["ThumbDIPStretch"] = 5.0 + 40.0 * bend**0.9
    return {name: float(values[name] + rng.normal(0.0, 1.0)) for name in ERGONOMICS}


def copied(shown: np.ndarray, sloppiness: float, rng: np.random.Generator) -> np.ndarray:
    """How a person copies a posture: fingers a little off, but a pinch is a pinch all the same."""
    hand = np.clip(shown + rng.normal(0.0, sloppiness, 6) * (shown > 0.01) * (shown < 0.99), 0, 1)
    wanted = thumb_distances(shown)
    near = wanted < 0.03
    if not near.any():
        return hand
    steps = np.linspace(0.0, 1.0, 81)
    tried = np.tile(hand, (81, 81, 1))
    tried[..., 4], tried[..., 5] = np.meshgrid(steps, steps, indexing="ij")
    miss = np.abs(thumb_distances(tried) - wanted)[..., near].sum(-1)
    effort = np.abs(tried[..., 4:] - shown[4:]).sum(-1)
    return tried.reshape(-1, 6)[int(np.argmin(miss + 0.003 * effort))]


def record(
    seed: int, reaction_s: float = 0.35, rate_hz: float = 25.0, sloppiness: float = 0.0
) -> CalibrationRecording:
    """A whole calibration of one person."""
    rng = np.random.default_rng(seed)
    gains = rng.uniform(0.85, 1.1, 6)
    motion, own = CalibrationMotion(seed=seed), CalibrationMotion(seed=seed)
    if sloppiness:
        own._openings = [copied(shown, sloppiness, rng) for shown in motion._openings]
    times = np.arange(0.0, motion.duration_s, 1.0 / rate_hz)
    samples = [angles_of(own.openings(t - reaction_s), rng, gains) for t in times]
    shown = [motion.openings(t) for t in times]
    stamps = [1_000_000_000 + round(t * 1e9) for t in times]
    return CalibrationRecording.from_samples(stamps, samples, shown)
