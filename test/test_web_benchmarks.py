"""The benchmark of the page measures what it says, on a collection that is small."""

import json
import shutil

import pytest

pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")

from dexpie_ros import cli
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.labels import label_tags
from dexpie_ros.web import benchmarks
from dexpie_ros.web.commands import WebError
from dexpie_ros.web.pictures import last_picture


def test_summary_by_hand():
    took = [float(k) for k in range(1, 102)]
    assert benchmarks.summary("a", took) == {
        "a_median_ms": 51.0, "a_p95_ms": 96.0, "a_worst_ms": 101.0,
    }  # fmt: skip


def test_the_collection_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "DIFFERENT", 2)
    steps = benchmarks.write_collection(tmp_path / "episodes", 5, seconds=0.4)
    entries = {entry.id: entry for entry in Collection(tmp_path / "episodes")}
    assert sorted(entries) == ["e0000", "e0001", "e0002", "e0003", "e0004", "long"]
    assert steps == entries["long"].content.steps == 10
    assert label_tags(entries["long"].path) == ["bench"]
    pictures = {last_picture(entry.path) for entry in entries.values()}
    assert len(pictures) == 3 and all(entry.usable for entry in entries.values())


@pytest.mark.slow
def test_it_measures_a_real_page(tmp_path, monkeypatch, capsys):
    try:
        with benchmarks.browser():
            pass
    except WebError as error:
        pytest.skip(str(error))
    whole = benchmarks.write_collection
    monkeypatch.setattr(
        benchmarks, "write_collection", lambda root, count, seconds: whole(root, 9, 0.6)
    )
    assert cli.main(["bench", "web", "--quick", "--output", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    for name in ("table", "scrub", "neighbour"):
        median, p95, worst = (figures[f"{name}_{key}_ms"] for key in ("median", "p95", "worst"))
        assert 0 < median <= p95 <= worst
    assert figures["table_first_ms"] > 0 and figures["open_ms"] > 0
    assert json.loads((tmp_path / "web.json").read_text())["bench"] == "web"


def test_without_a_browser_it_says_what_is_missing(monkeypatch, capsys):
    pytest.importorskip("playwright", reason="needs the extra `dev`: pip install -e '.[dev]'")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert cli.main(["bench", "web"]) != 0
    assert "install the package `chromium`" in capsys.readouterr().err


def test_a_server_that_does_not_start_is_told(tmp_path):
    with pytest.raises(WebError, match="no such directory"), benchmarks.serving(tmp_path / "none"):
        pass
