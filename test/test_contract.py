"""The table of topics: consistent in itself, with its messages, and with docs/topics.md."""

from pathlib import Path

import pytest

from dexpie_ros import contract
from dexpie_ros.messages import bag_typestore

DOCS = Path(__file__).parent.parent / "docs" / "topics.md"


def test_the_documentation_shows_the_contract() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert contract.markdown_table() in text, "write contract.markdown_table() into docs/topics.md"
    for name, kind in contract.SERVICES.items():
        assert f"| `{name}` | {kind} |" in text


def test_types_exist_and_names_are_unique() -> None:
    assert len(contract.BY_NAME) == len(contract.TOPICS)
    for topic in contract.TOPICS:
        assert topic.type in bag_typestore().types, topic.name


@pytest.mark.parametrize(
    ("images", "raw", "jpeg", "info"), [("jpeg", 0, 2, 2), ("raw", 2, 0, 2), ("none", 0, 0, 0)]
)
def test_what_is_recorded_of_the_cameras(images: str, raw: int, jpeg: int, info: int) -> None:
    names = [topic.name for topic in contract.recorded_topics(images)]
    assert sum(name.endswith("image_raw") for name in names) == raw
    assert sum(name.endswith("compressed") for name in names) == jpeg
    assert sum(name.endswith("camera_info") for name in names) == info
    assert "/control/step" in names and "/clock" not in names
