"""The Foxglove layout against the contract and a recorded bag. Foxglove itself is not run."""

import argparse
import json
import re

import factories
import pytest
from mcap.reader import make_reader

pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")

from web_pages import ask, served

from dexpie_ros import contract
from dexpie_ros.messages import bag_typestore
from dexpie_ros.web.commands import WebError, add_parser
from dexpie_ros.web.foxglove import layout

PANELS = layout()["configById"]
SERIES = [
    path["value"]
    for name, panel in PANELS.items()
    if name.startswith(("Plot!", "StateTransitions!"))
    for path in panel["paths"]
]


def leaves(node):
    return [node] if isinstance(node, str) else leaves(node["first"]) + leaves(node["second"])


def test_every_panel_has_its_place():
    assert sorted(leaves(layout()["layout"])) == sorted(PANELS)
    assert json.loads(json.dumps(layout(), allow_nan=False)) == layout()


@pytest.mark.parametrize("path", SERIES)
def test_every_series_is_a_number_of_a_recorded_topic(path):
    topic, *fields = path.split(".")
    row = contract.BY_NAME[topic]
    assert row.recorded
    types, kind = bag_typestore(), row.type
    for field in fields:
        name, index = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", field).groups()
        found = dict(types.fielddefs[kind][1])[name]
        if index is not None:
            (inner, length) = found[1]
            assert length == 0 or int(index) < length
            found = inner
        kind = found[1] if isinstance(found[1], str) else found[1][0]
    # numbers, truth values and durations can be drawn
    assert re.fullmatch(r"u?int\d+|float\d+|bool|builtin_interfaces/msg/Duration", kind), path


def test_other_topics_exist_with_the_type_that_their_panel_takes():
    for name in contract.CAMERAS:
        mode = PANELS[f"Image!{name}"]["imageMode"]
        assert contract.BY_NAME[mode["imageTopic"]].type == "sensor_msgs/msg/CompressedImage"
        assert contract.BY_NAME[mode["calibrationTopic"]].type == "sensor_msgs/msg/CameraInfo"
    topic = PANELS["DiagnosticSummary!health"]["topicToRender"]
    assert contract.BY_NAME[topic].type == "diagnostic_msgs/msg/DiagnosticArray"


def test_bags_hold_what_such_programs_need(tmp_path):
    """The definitions of our own messages travel in the bag."""
    path = factories.write_episode(tmp_path / "e", factories.Recipe(steps=3, images=True))
    with next(path.glob("*.mcap")).open("rb") as stream:
        summary = make_reader(stream).get_summary()
    kinds = {c.topic: summary.schemas[c.schema_id] for c in summary.channels.values()}
    for name in ("/control/step", "/camera/front/color/image_raw/compressed"):
        assert kinds[name].encoding == "ros2msg"
    step = kinds["/control/step"].data.decode()
    assert "MSG: dexpie_msgs/ControlCommand" in step and "MODE_HUMAN=3" in step.replace(" ", "")


def test_layout_and_bag_are_downloaded(tmp_path):
    path = factories.write_episode(tmp_path / "e", factories.Recipe(steps=3))
    with served(tmp_path) as where:
        status, headers, body = ask(f"{where}/foxglove_layout.json")
        assert status == 200 and json.loads(body) == layout()
        assert headers["content-disposition"].startswith("attachment")
        status, headers, body = ask(f"{where}/bag?episode=e")
        assert status == 200 and body == next(path.glob("*.mcap")).read_bytes()
        assert 'filename="e_0.mcap"' in headers["content-disposition"]
        assert ask(f"{where}/bag?episode=..%2Fe")[0] == 404
        assert ask(f"{where}/bag?episode=e", token=None)[0] == 403


def test_the_command_writes_it(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    file = tmp_path / "layout.json"
    options = parser.parse_args(["web", "--foxglove-layout", str(file)])
    assert options.run(options) == 0 and json.loads(file.read_text()) == layout()
    assert "Import from file" in capsys.readouterr().out
    (tmp_path / "taken").write_text("")
    options = parser.parse_args(["web", "--foxglove-layout", str(tmp_path / "taken/layout.json")])
    with pytest.raises(WebError, match="cannot be written"):
        options.run(options)
