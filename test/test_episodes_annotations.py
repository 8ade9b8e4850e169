"""Annotations: versions, conflicts, effect on what is read."""

import json
import multiprocessing

import factories
import numpy as np
import pytest

from dexpie_ros.episodes import Collection, EpisodeError, read_episode
from dexpie_ros.episodes.annotations import (
    AnnotationConflict,
    annotate,
    read_annotations,
    revert,
)

T0 = factories.START_NS


@pytest.fixture
def path(tmp_path):
    recipe = factories.Recipe(steps=20, human=((5, 9),))
    return factories.write_episode(tmp_path / "e", recipe, stage="reach")


def test_annotations_change_what_is_read_and_not_what_was_recorded(path):
    before = {f.name: f.read_bytes() for f in path.iterdir()}
    annotate(path, author="ann", outcome="failure", cause="collision", use_for_critic=False)
    annotate(
        path,
        author="ben",
        interventions=[(T0 + 80_000_000, T0 + 200_000_000)],
        stages=[(T0 + 400_000_000, "place")],
        note="bumped the table",
    )
    episode = read_episode(path)
    assert (episode.outcome, episode.cause) == ("failure", "collision")
    assert not episode.info.use_for_critic and episode.info.use_for_actor
    assert np.array_equal(np.flatnonzero(episode.human), [2, 3, 4])
    assert episode.stage_names[:10] == ("reach",) * 10 and episode.stage_names[10] == "place"
    assert episode.info.note["annotation"] == "bumped the table"
    assert Collection(path.parent).filter(outcome="failure").entries[0].info == episode.info
    assert len(Collection(path.parent).for_training("critic")) == 0
    assert len(Collection(path.parent).for_training("actor")) == 1
    assert before == {f: (path / f).read_bytes() for f in before}


def test_history_keeps_author_time_and_every_state(path):
    annotate(path, author="ann", outcome="failure", comment="watched it")
    annotate(path, author="ben", outcome="success")
    revisions = read_annotations(path).history
    assert [(r.number, r.author, r.annotation.outcome) for r in revisions] == [
        (1, "ann", "failure"),
        (2, "ben", "success"),
    ]
    assert revisions[0].comment == "watched it" and revisions[0].time <= revisions[1].time
    assert revert(path, 1).current.outcome == "failure"
    assert revert(path, 0).current.outcome is None
    assert read_annotations(path).revision == 4
    with pytest.raises(EpisodeError, match="no revision 9"):
        revert(path, 9)


def test_an_edit_against_an_old_revision_is_refused(path):
    seen = read_annotations(path).revision
    annotate(path, author="ann", expected_revision=seen, outcome="failure")
    with pytest.raises(AnnotationConflict, match="ann saved revision 1"):
        annotate(path, author="ben", expected_revision=seen, outcome="success")
    assert read_annotations(path).current.outcome == "failure"


def _edit(path, worker):
    for i in range(10):
        while True:
            seen = read_annotations(path)
            lines = (seen.current.note or "").split()
            try:
                annotate(
                    path, expected_revision=seen.revision, note=" ".join([*lines, f"{worker}.{i}"])
                )
                break
            except AnnotationConflict:
                continue


def test_two_processes_editing_at_once_lose_nothing(path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_edit, args=(path, w)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    notes = read_annotations(path).current.note.split()
    assert sorted(notes) == sorted(f"{w}.{i}" for w in range(3) for i in range(10))
    assert read_annotations(path).revision == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcome": "won"}, "outcome"),
        ({"outcom": "success"}, "did you mean outcome"),
        ({"stages": [(5, "b"), (3, "a")]}, "ascend"),
        ({"interventions": [(5, 3)]}, "in order"),
        ({"interventions": [(1, 5), (4, 8)]}, "without overlap"),
    ],
)
def test_impossible_values_are_refused_and_nothing_is_saved(path, changes, message):
    with pytest.raises(EpisodeError, match=message):
        annotate(path, **changes)
    assert not (path / "annotations.json").exists()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 9, "revisions": []}', '{"format": 1, "revisions": [3]}']
)
def test_a_broken_file_is_an_error_and_never_an_empty_annotation(path, content):
    (path / "annotations.json").write_text(content)
    with pytest.raises(EpisodeError, match=r"annotations\.json"):
        read_episode(path)
    assert "annotations.json" in Collection(path.parent).entries[0].error
    with pytest.raises(EpisodeError):
        annotate(path, outcome="success")
    assert (path / "annotations.json").read_text() == content


def test_a_lost_revision_is_noticed(path):
    annotate(path, outcome="success")
    annotate(path, outcome="failure")
    values = json.loads((path / "annotations.json").read_text())
    del values["revisions"][0]
    (path / "annotations.json").write_text(json.dumps(values))
    with pytest.raises(EpisodeError, match="revisions are missing"):
        read_annotations(path)


def test_only_episodes_are_annotated(tmp_path):
    with pytest.raises(EpisodeError, match="not an episode"):
        annotate(tmp_path, outcome="success")


def test_evaluation_episodes_are_never_learned_from(tmp_path):
    for kind in ("deployment", "evaluation"):
        factories.write_episode(tmp_path / kind, factories.Recipe(steps=5), kind=kind)
    collection = Collection(tmp_path)
    assert len(collection) == 2
    for use in ("critic", "actor"):
        assert [e.info.kind for e in collection.for_training(use)] == ["deployment"]
