"""The report: self-contained, honest about its figures, safe against what it is fed."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from critic_data import mixture

from dexpie_ros.critic import settings as presets
from dexpie_ros.critic.label import LabelConfig, label
from dexpie_ros.critic.report import critic_report
from dexpie_ros.critic.train import train_critic
from dexpie_ros.evaluation import plots
from dexpie_ros.evaluation.html import picture
from dexpie_ros.evaluation.report import render, verdict, write_report
from dexpie_ros.evaluation.report_data import (
    DataSource,
    EpisodeView,
    Frame,
    LiveCheck,
    PolicyResult,
    ReportData,
    Reproduction,
    Timing,
)
from dexpie_ros.evaluation.statistics import Interval, Trial


def trials(successes: int, count: int = 40, time_s: float = 5.0) -> tuple[Trial, ...]:
    return tuple(
        Trial(
            str(k),
            k < successes,
            time_s if k < successes else 8.0,
            "" if k < successes else "tipped",
        )
        for k in range(count)
    )


@pytest.fixture(scope="module")
def full() -> ReportData:
    episodes = mixture(12)
    settings = dataclasses.replace(presets.best(200), epochs=2, hidden=16, crossfit=2)
    critic = train_critic(settings, episodes)
    labels = label(critic, episodes, LabelConfig())
    image = np.zeros((24, 32, 3), np.uint8)
    correction = episodes[3]
    view = EpisodeView(
        "A correction",
        (correction.time_ns - correction.time_ns[0]) / 1e9,
        labels[3].value,
        correction.human,
        None,
        labels[3].optimality,
        "success",
        "seed 3",
        (Frame(0.0, image, "policy"), Frame(1.0, image, "human")),
    )
    return ReportData(
        title="A <b>run</b> & more",
        task="bottle",
        limit_s=8.0,
        policies=(PolicyResult("BC", trials(16)), PolicyResult("DexPIE", trials(34), "all <data>")),
        live_checks=(LiveCheck("DexPIE", trials(9, 10), trials(10, 10)),),
        episodes=(view,),
        critic=critic_report(critic, episodes, labels),
        data=(DataSource("demonstrations", 6, 34, 8000, 40, 8000),),
        timing=(Timing("control period", np.array([39.9, 40.0, 41.0]), 40.0),),
        counters={"stalls": "0"},
        reproductions=(Reproduction("all", "dexpie demo --fresh", "0-39"),),
        environment={"commit": "abc123", "date": "2026-01-02"},
        remarks=("interrupted & resumed",),
    )


def test_it_loads_nothing_from_elsewhere(full: ReportData, tmp_path: Path) -> None:
    text = write_report(tmp_path / "report.html", full).read_text(encoding="utf-8")
    # namespaces are names, not addresses that anything is loaded from
    text = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.findall(r'(?:src|href|xlink:href)="(?!data:|#)[^"]*"', text)
    assert "url(http" not in text and "@import" not in text and "<script" not in text
    assert "default-src 'none'" in text


def test_everything_that_is_fed_is_escaped(full: ReportData) -> None:
    text = render(full)
    assert "A &lt;b&gt;run&lt;/b&gt; &amp; more" in text and "<b>run" not in text
    assert "all &lt;data&gt;" in text and "interrupted &amp; resumed" in text


def test_every_section_is_there_and_linked(full: ReportData) -> None:
    text = render(full)
    for key in ("results", "live", "episodes", "critic", "data", "timing", "reproduce"):
        assert f'href="#{key}"' in text and f'<h2 id="{key}">' in text
    for figure in ("34 / 40", "85.0 %", "dexpie demo --fresh", "abc123", "9 of 10", "tipped"):
        assert figure in text
    assert text.count("<svg") == text.count("</svg>") == 6
    empty = render(ReportData(title="nothing yet"))
    assert "<h2" not in empty and "<svg" not in empty


def test_the_verdict_follows_the_figures(full: ReportData) -> None:
    (better,) = verdict(full)
    assert better.startswith("DexPIE succeeds more often than BC: 34 against 16 of 40")
    assert "do not overlap" in better and "+45.0" in better
    policies = (PolicyResult("BC", trials(20)), PolicyResult("DexPIE", trials(21)))
    (equal,) = verdict(dataclasses.replace(full, policies=policies))
    assert equal.startswith("No difference in success shown") and "intervals overlap" in equal
    (worse,) = verdict(dataclasses.replace(full, baseline="DexPIE"))
    assert worse.startswith("BC succeeds less often than DexPIE")
    (alone,) = verdict(dataclasses.replace(full, policies=full.policies[:1]))
    assert alone == "BC succeeded from 16 of 40 starts."
    with pytest.raises(ValueError, match="baseline 'nobody'"):
        verdict(dataclasses.replace(full, baseline="nobody"))


def test_figures_are_valid_repeatable_and_follow_the_page() -> None:
    rate = Interval(0.5, 0.4, 0.6)
    drawn = [
        plots.success_bars(["a & b", "c"], [rate, rate], ["5/10", "5/10"]),
        plots.success_over_time(["a"], [0.0, 1.0], [[0.0, 0.5]], 1.0),
        plots.value_curve([0.0, 0.04, 0.08], [-0.3, -0.2, -0.1], [False, True, True]),
        plots.histograms(["period"], [[40.0, 40.1]], [None]),
        plots.data_sources(["demonstrations"], [1], [2]),
        plots.calibration([-0.5, -0.1], [-0.4, -0.1], [10, 5]),
    ]
    for svg in drawn:
        ET.fromstring(svg)
        assert b"currentColor" in svg and b"#010203" not in svg
    again = plots.success_bars(["a & b", "c"], [rate, rate], ["5/10", "5/10"])
    assert again == drawn[0]


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_limit_that_no_start_needed_leaves_the_curves_room() -> None:
    """All ended after 4 s of 16.5: the curves go on level to the limit, which is at the edge."""
    drawn = plots.success_over_time(["bc", "dexpie"], [0.0, 4.0], [[0.0, 0.5]] * 2, 16.5).decode()
    texts = {e.text for e in ET.fromstring(drawn).iter() if e.tag.endswith("text")}
    assert {"limit", "16", "bc", "dexpie"} <= texts
    before = plots.success_over_time(["bc"], [0.0, 14.0], [[0.0, 0.5]], 8.7)
    assert before != plots.success_over_time(["bc"], [0.0, 14.0], [[0.0, 0.5]], 14.0)


def test_spans() -> None:
    assert plots.spans([False, True, True, False, True]) == [(1, 3), (4, 5)]
    assert plots.spans([]) == [] and plots.spans([True]) == [(0, 1)]


def test_pictures_are_rgb_only() -> None:
    assert picture(np.zeros((480, 640, 3), np.uint8)).startswith("data:image/jpeg;base64,")
    with pytest.raises(ValueError, match="not RGB"):
        picture(np.zeros((48, 64), np.uint8))
