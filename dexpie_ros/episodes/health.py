"""How well the streams of an episode arrived, in words: said when it ends and by `episodes show`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.episodes.episode_file import EpisodeFile


def summary(content: EpisodeFile) -> str:
    """One line: length, steps, messages, and every stream that lost something or said nothing."""
    seconds = content.steps * STEP_NS * 1e-9
    share = 100 * content.human_steps / content.steps if content.steps else 0
    words = [
        f"{content.info.episode_id}: {content.info.outcome or 'not judged'}, {seconds:.1f} s in "
        f"{content.steps} control steps ({share:.0f} % by the operator), {content.messages} messages"
    ]
    for name, s in _streams(content).items():
        if s.get("slow"):
            words.append(f"{name} {s['slow']}")
        if s.get("dropped"):
            words.append(f"{name} lost {s['dropped']} of {s.get('expected', '?')}")
    silent = content.statistics.get("silent")
    if isinstance(silent, list) and silent:
        words.append(f"nothing came on {', '.join(map(str, silent))}")
    if dropped := content.statistics.get("queue_dropped"):
        words.append(f"{dropped} messages dropped before the disk")
    if early := content.statistics.get("ended_early"):
        words.append(f"ended early: {early}")
    return "; ".join(words)


def table(content: EpisodeFile) -> list[str]:
    """One line per stream: counts, rate, jitter, largest gap and delay."""
    lines = [
        f"{'stream':42} {'received':>8} {'expected':>8} {'lost':>5} {'Hz':>8} {'jitter':>9} "
        f"{'gap':>10} {'delay':>9}"
    ]
    for name, s in sorted(_streams(content).items()):
        lines.append(
            f"{name:42} {_number(s, 'received'):8.0f} {_number(s, 'expected'):8.0f} "
            f"{_number(s, 'dropped'):5.0f} {_number(s, 'rate_hz'):8.2f} "
            f"{_number(s, 'jitter_ms'):6.2f} ms {_number(s, 'max_gap_ms'):7.1f} ms "
            f"{_number(s, 'mean_delay_ms'):6.2f} ms"
        )
    silent = content.statistics.get("silent")
    lines += [f"{name:42}     none" for name in silent] if isinstance(silent, list) else []
    return lines


def _streams(content: EpisodeFile) -> dict[str, Mapping[str, Any]]:
    """By topic; what is no group of figures (an edited file) is left out."""
    streams = content.statistics.get("streams", {})
    if not isinstance(streams, dict):
        return {}
    return {name: figures for name, figures in streams.items() if isinstance(figures, dict)}


def _number(figures: Mapping[str, Any], key: str) -> float:
    value = figures.get(key, 0)
    return float(value) if isinstance(value, (int, float)) else 0.0
