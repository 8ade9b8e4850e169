"""A layout for those who look at bags or at the running graph in Foxglove (or Lichtblick).

Both read the bags as they are; the layout says which topics are worth a panel. It is written in the
form that their "Import from file" takes: panels by id, and how they divide the window.
"""

from __future__ import annotations

from typing import Any

from dexpie_ros.contract import CAMERAS
from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.web.label_topics import TOPICS

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8a000", "#56b4e9")
_PLAIN = tuple(TOPICS.values())
"""Topics without a header."""
Series = tuple[str, str]
"""Label, and the path of a field."""


def layout() -> dict[str, Any]:
    """Cameras and diagnostics on the left; who drives, position, hand, latencies on the right."""
    axes = ("x", "y", "z")
    command, pose = "/control/step.command", "/arm/tcp_pose.pose.position"
    panels: dict[str, dict[str, Any]] = {
        **{f"Image!{name}": _image(name) for name in CAMERAS},
        "DiagnosticSummary!health": {
            "foxglovePanelTitle": "Diagnostics",
            "topicToRender": "/diagnostics",
            "minLevel": 0,
            "pinnedIds": [],
            "hardwareIdFilter": "",
            "sortByLevel": True,
        },
        "StateTransitions!driver": {
            "foxglovePanelTitle": "Who drives",
            "isSynced": True,
            "paths": [
                {"value": value, "label": label, "timestampMethod": "headerStamp"}
                for label, value in (
                    ("mode", "/control/step.mode"),
                    ("source", f"{command}.source"),
                    ("aligned", "/teleop/alignment.aligned"),
                    ("session", "/session/state.phase"),
                )
            ],
        },
        "Plot!position": _plot(
            "Position of the TCP, m",
            [(f"{axis} measured", f"{pose}.{axis}") for axis in axes],
            [(f"{axis} command", f"{command}.tcp.position.{axis}") for axis in axes],
        ),
        "Plot!hand": _plot(
            "Finger openings, 0 closed .. 1 open",
            [
                (f"{_said(name)} measured", f"/hand/joint_states.position[{k}]")
                for k, name in enumerate(HAND_JOINTS)
            ],
            [(f"{_said(name)} command", f"{command}.hand[{k}]") for k, name in enumerate(HAND_JOINTS)],
        ),
        "Plot!value": _plot(
            "Value and advantage (of the labels, opened beside the bag)",
            [(name.replace("_", " "), f"{topic}.data") for name, topic in TOPICS.items()],
        ),
        "Plot!timing": _plot(
            "Alignment, rad, and latency of chunks, s",
            [
                ("angle to the operator", "/teleop/alignment.angle"),
                ("its limit", "/teleop/alignment.angle_limit"),
                ("latency of chunks", "/policy/chunk.latency"),
                ("stalls", "/control/step.stalls"),
            ],
        ),
    }  # fmt: skip
    pictures = _split("column", 50, *(f"Image!{name}" for name in CAMERAS))
    left = _split("column", 75, pictures, "DiagnosticSummary!health")
    lower = _split("column", 50, "Plot!hand", "Plot!timing")
    curves = _split("column", 50, _split("column", 50, "Plot!value", "Plot!position"), lower)
    return {
        "configById": panels,
        "globalVariables": {},
        "userNodes": {},
        "playbackConfig": {"speed": 1},
        "layout": _split("row", 38, left, _split("column", 25, "StateTransitions!driver", curves)),
    }


def _image(camera: str) -> dict[str, Any]:
    base = f"/camera/{camera}/color"
    return {
        "foxglovePanelTitle": camera,
        "imageMode": {
            "imageTopic": f"{base}/image_raw/compressed",
            "calibrationTopic": f"{base}/camera_info",
        },
    }


def _plot(title: str, broad: list[Series], thin: list[Series] | None = None) -> dict[str, Any]:
    """Measurements as broad lines, commands of the same colours as thin ones, as on our own page."""
    rows = [(k, label, value, 2.5) for k, (label, value) in enumerate(broad)]
    rows += [(k, label, value, 1.0) for k, (label, value) in enumerate(thin or [])]
    return {
        "foxglovePanelTitle": title,
        "paths": [
            {
                "value": value,
                "label": label,
                "enabled": True,
                "color": _COLOURS[k % len(_COLOURS)],
                "timestampMethod": "receiveTime" if value.startswith(_PLAIN) else "headerStamp",
                "showLine": True,
                "lineSize": size,
            }
            for k, label, value, size in rows
        ],
        "showLegend": True,
        "legendDisplay": "left",
        "showPlotValuesInLegend": True,
        "showXAxisLabels": True,
        "showYAxisLabels": True,
        "isSynced": True,
        "xAxisVal": "timestamp",
        "sidebarDimension": 220,
    }


def _split(direction: str, percentage: float, first: Any, second: Any) -> dict[str, Any]:
    return {
        "direction": direction,
        "splitPercentage": percentage,
        "first": first,
        "second": second,
    }


def _said(name: str) -> str:
    return name.replace("_", " ")
