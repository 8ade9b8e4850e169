"""`dexpie monitor`: what it makes of what it hears."""

import pytest

from dexpie_ros import contract

pytest.importorskip("rich")

from rich.console import Console

from dexpie_ros.nodes.monitor import GraphView, render

MS = 1_000_000
NAMES = ("/control/step", "/arm/tcp_pose", "/teleop/glove", "/intervention/state")


def view() -> GraphView:
    return GraphView(tuple(contract.BY_NAME[name] for name in NAMES))


def rows(seen: GraphView, now: int) -> dict[str, tuple]:
    return {row[0]: row[1:] for row in seen.topic_rows(now)}


def test_rates_are_judged_by_the_contract():
    seen = view()
    for tick in range(50):
        seen.seen("/control/step", tick * 40 * MS)
        seen.seen("/arm/tcp_pose", tick * 40 * MS)  # 25 of 125 Hz
    seen.seen("/intervention/state", 0)
    now = 49 * 40 * MS
    found = rows(seen, now)
    assert found["/control/step"] == ("25.0", "25", "0.00 s", "")
    assert found["/arm/tcp_pose"][0] == "25.0" and found["/arm/tcp_pose"][3] == "slow"
    assert found["/teleop/glove"][3] == "never came"
    assert found["/intervention/state"][1] == "on change" and found["/intervention/state"][3] == ""
    seen.simulated = True
    assert rows(seen, now)["/arm/tcp_pose"][3] == "", "in simulation it is 25 Hz"
    assert rows(seen, now + 2000 * MS)["/control/step"][3] == "silent"


def test_nodes_show_their_figures_and_their_silence():
    seen = view()
    figures = {"jitter_p99_ms": "1.5", "jitter_count": "100", "stalls": "2"}
    seen.diagnosed("intervention_arbiter", 1, "holding", figures, 0)
    ((name, level, text, shown),) = seen.node_rows(1000 * MS)
    assert (name, level, text) == ("intervention_arbiter", 1, "holding")
    assert shown == "jitter_p99_ms 1.5  stalls 2"
    ((_, level, text, _),) = seen.node_rows(4000 * MS)
    assert level == 3 and text == "silent for 4 s"


def test_it_can_be_drawn_whatever_the_nodes_say():
    seen = view()
    seen.diagnosed("recorder", 2, "[/tmp] is full [red]", {}, 0)
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(render(seen, 0))
    assert "[/tmp] is full [red]" in captured.get() and "arbiter: silent" in captured.get()
