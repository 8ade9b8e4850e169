"""``read_episode``: a bag directory -> :class:`Episode`, or an error that says what to do.

A recording that was cut off or damaged gives an episode with ``partial`` set and ``problems`` in
words; steps that rest on old samples or that were lost themselves are flagged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.aligned import Aligned, align_bag
from dexpie_ros.episodes.annotations import apply, intervention_rows, read_annotations
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode import Episode, EpisodeError, ImageSequence
from dexpie_ros.episodes.episode_file import (
    RECORD_NAME,
    EpisodeFile,
    from_record,
    read_episode_file,
)


def read_episode(directory: str | Path, settings: AlignConfig | None = None) -> Episode:
    """Read and align one episode. EpisodeError names file, topic and remedy."""
    bag = BagReader(find_bag(directory))
    aligned = align_bag(bag, settings or AlignConfig())
    return assemble(directory, aligned, aligned.cameras, bag)


def assemble(
    directory: str | Path,
    aligned: Aligned,
    cameras: Mapping[str, ImageSequence],
    bag: BagReader | None = None,
) -> Episode:
    """Aligned arrays with the description and the annotations as they are now."""
    content, problems = describe(directory, bag)
    annotation = read_annotations(directory).current
    steps = int(np.count_nonzero(np.isfinite(aligned.arrays["command_hand"]).all(axis=1)))
    short = steps < content.steps
    if short:
        problems.append(
            f"{directory}: {content.steps} control steps were recorded, {steps} are here"
        )
    return Episode(
        info=apply(content.info, annotation),
        path=Path(directory),
        **aligned.arrays,  # type: ignore[arg-type]
        object_names=aligned.object_names,
        events=aligned.events,
        cameras=cameras,
        stages=tuple(annotation.stages or ()),
        align=aligned.align,
        intervention=intervention_rows(annotation, aligned.arrays["time_ns"]),
        partial=aligned.partial or short or content.status in ("recording", "repaired"),
        problems=(*aligned.problems, *problems),
    )


def require_alignment(episodes: Iterable[Episode], align: AlignConfig) -> None:
    """EpisodeError where an episode was aligned otherwise: what is recorded of a run must be true."""
    for episode in episodes:
        if episode.align not in (None, align):
            raise EpisodeError(
                f"{episode.path}: was aligned with {episode.align}, the section `align` says {align}; "
                "read it with the section's settings"
            )


def describe(directory: str | Path, bag: BagReader | None = None) -> tuple[EpisodeFile, list[str]]:
    """The description from episode.json, else from the bag, and what is wrong with it."""
    content: EpisodeFile | None = None
    problems: list[str] = []
    try:
        content = read_episode_file(directory)
    except EpisodeError as error:
        problems.append(str(error))
    if content is None:
        bag = bag or BagReader(find_bag(directory))
        for name, record in reversed(bag.metadata):
            if name == RECORD_NAME:
                content = from_record(record, str(bag.path))
                break
    if content is None:
        raise EpisodeError(
            f"{directory}: neither a sound episode.json nor a description in the bag: recorded by "
            "another program, so not an episode; restore episode.json if it was one"
        )
    if content.status == "recording":
        problems.append(
            f"{directory}: the recording was never finished; `dexpie episodes repair` makes it whole"
        )
    if content.status == "repaired":
        lost, before = content.repair.get("lost_bytes"), content.repair.get("problems", ())
        if lost is None and before:
            problems.append(f"{directory}: partial where it was imported from: {before[0]}")
        else:
            problems.append(
                f"{directory}: cut off and repaired since; its end ({lost} bytes) is lost"
            )
    return content, problems
