"""What the browser tests share: a small collection, a server and a browser for each module."""

import shutil

import factories
import pytest
from web_pages import browser, standing

from dexpie_ros.critic.label import Labels
from dexpie_ros.episodes.labels import write_labels

SEGMENT = {"images": True, "human": ((15, 30),)}


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """A failure with its correction, a demonstration, a broken bag; copied for every test."""
    root = tmp_path_factory.mktemp("pattern") / "collection"
    recipe = factories.Recipe(steps=45, images=True)
    values = {"kind": "deployment", "policy_id": "bc-1", "pair_id": "pair-7"}
    failed = factories.write_episode(
        root / "e1-failed", recipe, outcome="failure", cause="tipped", stage="reach", **values
    )
    factories.write_episode(
        root / "e2-corrected",
        factories.Recipe(steps=45, **SEGMENT, events=((20, "grasped"),)),
        **{**values, "kind": "correction"},
    )
    factories.write_episode(
        root / "e3-shown", factories.Recipe(steps=20, human=((0, 20),)), kind="demonstration"
    )
    shutil.copytree(failed, root / "e4-broken")
    (bag,) = (root / "e4-broken").glob("*.mcap")
    bag.write_bytes(b"\0" * 1000)
    described = root / "e4-broken/episode.json"
    described.write_text(described.read_text().replace("e1-failed", "e4-broken"))
    shutil.copytree(root / "e4-broken", root / "e5-lost")
    (root / "e5-lost/episode.json").write_text("{")
    ramp = [k / 44 for k in range(45)]
    meta = {"critic": "abc", "q_low": 0.2}
    write_labels(failed, "v0", Labels(ramp, ramp, ramp, meta))
    low, high = [k / 88 for k in range(45)], [k / 44 + 0.5 for k in range(45)]
    write_labels(failed, "v1", Labels(ramp, ramp, ramp, meta, low, high))
    return root


@pytest.fixture
def root(pattern, tmp_path):
    return shutil.copytree(pattern, tmp_path / "collection")


@pytest.fixture(scope="module")
def stand():
    with standing() as stand:
        yield stand


@pytest.fixture
def where(root, stand):
    with stand.showing(root) as address:
        yield address


@pytest.fixture(scope="module")
def window(chromium):
    """One profile for all tests: what was loaded once is in its cache."""
    context = chromium.new_context(accept_downloads=True)
    yield context
    context.close()
