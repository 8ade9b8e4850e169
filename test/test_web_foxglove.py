"""The Foxglove layout against the contract and a recorded bag. Foxglove itself is not run."""

import argparse
import io
import json
import re

import factories
import numpy as np
import pytest
from mcap.reader import make_reader

pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")

from web_pages import ask, served

from dexpie_ros import contract
from dexpie_ros.critic.label import Labels
from dexpie_ros.episodes.labels import write_labels
from dexpie_ros.messages import bag_typestore
from dexpie_ros.web.commands import WebError, add_parser
from dexpie_ros.web.foxglove import layout
from dexpie_ros.web.label_topics import FLOAT64, TOPICS

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
    types = bag_typestore()
    if topic in TOPICS.values():
        kind = FLOAT64
    else:
        assert contract.BY_NAME[topic].recorded
        kind = contract.BY_NAME[topic].type
        assert next(iter(dict(types.fielddefs[kind][1]))) == "header", (
            "has the stamp to be drawn at"
        )
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


def test_labels_are_topics_of_a_file_beside_the_bag(tmp_path):
    path = factories.write_episode(tmp_path / "e", factories.Recipe(steps=4))
    ramp = np.float32([0.0, 0.25, 0.5, 0.75])
    meta = {"critic": "abc", "q_low": 0.2}
    write_labels(path, "v1", Labels(ramp, 2 * ramp, ramp, meta, ramp - 1, ramp + 1))
    write_labels(path, "old", Labels(ramp, ramp, ramp, meta))
    with served(tmp_path) as where:
        status, headers, body = ask(f"{where}/labels?episode=e&tag=v1")
        assert status == 200 and 'filename="v1_labels.mcap"' in headers["content-disposition"]
        old = ask(f"{where}/labels?episode=e&tag=old")[2]
        assert ask(f"{where}/labels?episode=e&tag=..%2Fv1")[0] == 422
        assert ask(f"{where}/labels?episode=e&tag=none")[0] == 422
        assert ask(f"{where}/labels?episode=no&tag=v1")[0] == 404
    rows = {}
    for schema, channel, message in make_reader(io.BytesIO(body)).iter_messages():
        assert (schema.name, schema.encoding) == (FLOAT64, "ros2msg")
        value = bag_typestore().deserialize_cdr(message.data, FLOAT64).data
        rows.setdefault(channel.topic, []).append((message.log_time, value))
    assert set(rows) == set(TOPICS.values())
    times = [factories.START_NS + k * 40_000_000 for k in range(4)]
    assert rows["/critic/advantage"] == list(zip(times, (2 * ramp).tolist()))
    assert rows["/critic/value_low"] == list(zip(times, (ramp - 1).tolist()))
    summary = make_reader(io.BytesIO(old)).get_summary()
    assert {c.topic for c in summary.channels.values()} == {
        "/critic/value", "/critic/advantage", "/critic/optimality",
    }  # fmt: skip
    (about,) = make_reader(io.BytesIO(old)).iter_metadata()
    assert about.metadata == {"episode": "e", "critic": "abc"}


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
