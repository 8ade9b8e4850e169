"""trials.json: seeds that ran elsewhere make one report, and what does not belong is refused."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from test_evaluation_experiments import fake

from dexpie_ros.config import ConfigError
from dexpie_ros.evaluation.experiment_commands import add_experiment
from dexpie_ros.evaluation.experiments.page import write_page
from dexpie_ros.evaluation.experiments.results import load_found
from dexpie_ros.evaluation.experiments.settings import ladder
from dexpie_ros.evaluation.experiments.trials_file import read_trials

TINY = ladder(tasks=["A"], regimes=["retry"], seeds=4, trials=10)
COUNTS = {"bc": [4, 5, 6, 5], "dexpie": [8, 9, 6, 7]}


def page(config: Any, folder: Path, *added: Path) -> dict[str, Any]:
    write_page(
        config, folder, "dexpie experiment ladder", "2026-01-02", added=read_trials(config, added)
    )
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def halves(tmp_path: Path) -> tuple[Path, Path, Any]:
    """Seeds 0 and 1 in one folder, 2 and 3 in another, and the second's settings."""
    first = dataclasses.replace(TINY, seeds=2)
    second = dataclasses.replace(TINY, seeds=2, first_seed=2)
    fake(tmp_path / "one", first, COUNTS)
    fake(tmp_path / "two", second, COUNTS)
    page(first, tmp_path / "one")
    return tmp_path / "one", tmp_path / "two", second


def test_two_machines_make_the_report_of_one(tmp_path: Path) -> None:
    fake(tmp_path / "whole", TINY, COUNTS)
    whole = page(TINY, tmp_path / "whole")
    one, two, _ = halves(tmp_path)
    joined = page(TINY, two, one / "trials.json")
    about = joined.pop("about")
    assert "trials.json (4 evaluations)" in about.pop("added")
    for key in ("ladder.A-retry.bc", "ladder.A-retry.dexpie", "gain_dexpie_bc", "differences"):
        assert joined[key] == whole[key]
    assert joined["ladder.A-retry.dexpie"]["by_seed"] == [0.8, 0.9, 0.6, 0.7]
    assert (two / "trials.json").read_text() == (tmp_path / "whole" / "trials.json").read_text()


def test_all_that_counts_survives_the_file(tmp_path: Path) -> None:
    fake(tmp_path, TINY, COUNTS)
    page(TINY, tmp_path)
    added = read_trials(TINY, [tmp_path / "trials.json"])
    from_file = load_found(TINY, tmp_path / "nothing", added.trials)
    assert from_file == load_found(TINY, tmp_path)
    # the first five starts of ten are a smaller experiment; more than there are is missing
    fewer = load_found(dataclasses.replace(TINY, trials=5), tmp_path / "nothing", added.trials)
    assert [s.success.value for s in fewer.results[0].by_seed()] == [0.8, 1.0, 1.0, 1.0]
    more = load_found(dataclasses.replace(TINY, trials=11), tmp_path / "nothing", added.trials)
    assert more.results == () and "A-retry/main/seed-000 bc (10 starts)" in more.missing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(first_start=710_000_000), "starts begin at 710000000"),
        (lambda c: c["experiment"].update(mess=0.5), "another experiment .differs in mess"),
        (lambda c: c["evaluations"][0].update(arm="sarsa"), "sarsa is no part of this report"),
        (lambda c: c["evaluations"][0].update(unit="A-retry/main/seed-009"), "no part of this"),
        (lambda c: c["evaluations"][0].update(untouched=[10]), "it has only 10 trials"),
        (lambda c: c["evaluations"][0].update(failed={"a": [1], "b": [1]}), "two causes"),
        (lambda c: c["evaluations"][0].update(steps=[-1]), "steps"),
        (lambda c: c.update(format=2), "format"),
        (lambda c: c.pop("commits"), "commits"),
    ],
)
def test_what_does_not_belong_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    one, two, _ = halves(tmp_path)
    content = json.loads((one / "trials.json").read_text())
    change(content)
    (one / "trials.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        page(TINY, two, one / "trials.json")
    assert not (two / "results.json").exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"format": 1', "null"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trials.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"no trials\.json of an experiment"):
        read_trials(TINY, [path])


def test_one_seed_cannot_have_two_results(tmp_path: Path) -> None:
    one, _, _ = halves(tmp_path)
    first = dataclasses.replace(TINY, seeds=2)
    page(first, one, one / "trials.json")  # the same twice is no contradiction
    fake(tmp_path / "other", first, {"bc": [4, 6]})
    with pytest.raises(ConfigError, match="seed-001: the evaluation of bc is another"):
        page(first, tmp_path / "other", one / "trials.json")
    page(first, tmp_path / "other")
    both = [one / "trials.json", tmp_path / "other" / "trials.json"]
    with pytest.raises(ConfigError, match="seed-001 bc has other trials in another file"):
        read_trials(first, both)


def test_several_commits_are_warned_of(tmp_path: Path) -> None:
    one, two, _ = halves(tmp_path)
    for folder, name in ((one, "first"), (two, "second")):
        for path in folder.rglob("evaluation/*.json"):
            content = json.loads(path.read_text())
            content["provenance"] = {"commit": name}
            path.write_text(json.dumps(content))
    page(dataclasses.replace(TINY, seeds=2), one)
    joined = page(TINY, two, one / "trials.json")
    assert joined["commits"] == ["first", "second"] and "mix 2 commits" in joined["mixed"]
    assert "mix 2 commits" in (two / "report.html").read_text()


def test_a_bad_file_ends_the_command_before_any_work(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_experiment(parser.add_subparsers())
    words = ["--output", str(tmp_path / "out"), "--add", str(tmp_path / "gone.json")]
    options = parser.parse_args(["experiment", "ladder", "--tasks", "A", *words])
    with pytest.raises(ConfigError, match=r"gone\.json: no such file; give the trials\.json"):
        options.run(options)
    with pytest.raises(ConfigError, match=r"is a folder; give the trials\.json"):
        read_trials(TINY, [tmp_path])
    assert not (tmp_path / "out").exists()
