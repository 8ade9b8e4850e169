"""What the server answers and refuses, without a browser."""

import argparse
import json
import re
import shutil
from urllib.parse import quote

import factories
import pytest
import web_pages
from web_pages import TOKEN, ask, served

from dexpie_ros.episodes.annotations import annotate, read_annotations, revert
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.images import decode_jpeg

pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")

from dexpie_ros.web.commands import WebError, add_parser, address, is_loopback, listen
from dexpie_ros.web.editing import undo_target
from dexpie_ros.web.rows import quality


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("collection")
    factories.write_collection(root / "some", 3)
    factories.write_episode(
        root / "pictures", factories.Recipe(steps=30, human=((10, 20),), images=True)
    )
    shutil.copytree(root / "pictures", root / "broken")
    (bag,) = (root / "broken").glob("*.mcap")
    bag.write_bytes(bag.read_bytes()[:100] + b"\0" * 400)
    (root.parent / "outside.json").write_text("{}")
    (root / "bench").mkdir()
    (root / "bench/report.html").write_text("<script>alert(1)</script><p>fine")
    (root / "bench/results.json").write_text('{"n": 3, "share": NaN}')
    with served(root) as where:
        yield root, where


def get(where, path):
    status, _, body = ask(where + path)
    return status, json.loads(body)


def save(where, name, values, **headers):
    path = f"{where}/api/annotate?episode={quote(name)}"
    status, _, body = ask(path, data=json.dumps(values).encode(), **headers)
    return status, json.loads(body)


@pytest.mark.parametrize("path", ["/", "/api/episodes", "/static/main.js", "/report?name=x", "/no"])
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x"])
def test_without_the_right_token_nothing_is_told(site, path, token):
    status, _, body = ask(site[1] + path, token=token)
    assert status == 403
    assert str(site[0]).encode() not in body and b"dexpie web" in body


def test_a_wrong_token_in_the_address_is_refused_even_with_the_cookie(site):
    assert ask(f"{site[1]}/?token=wrong")[0] == 403
    assert ask(f"{site[1]}/?token=wrong", token=None)[0] == 403


def test_the_token_moves_from_the_address_into_a_cookie(site):
    status, headers, _ = ask(f"{site[1]}/episode?id=a%2Fb&token={TOKEN}", token=None)
    assert (status, headers["location"]) == (303, "/episode?id=a%2Fb")
    cookie = headers["set-cookie"].lower()
    assert f"dexpie={TOKEN}" in cookie and "httponly" in cookie and "samesite=lax" in cookie
    status, headers, _ = ask(f"{site[1]}//elsewhere.example/?token={TOKEN}", token=None)
    assert headers["location"].startswith("/elsewhere")


def test_nothing_may_be_loaded_from_elsewhere(site):
    headers = ask(site[1] + "/")[1]
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"


def test_scripts_are_kept_by_the_browser_under_an_address_that_names_their_content(site):
    page = ask(site[1] + "/")[2].decode()
    (script,) = re.findall(r'src="(/static/[0-9a-f]{12}/main\.js)"', page)
    status, headers, body = ask(site[1] + script)
    assert status == 200 and headers["content-type"].startswith("text/javascript")
    assert "immutable" in headers["cache-control"] and b"import" in body
    assert ask(f"{site[1]}/static/000000000000/main.js")[0] == 404
    assert ask(site[1] + "/")[1]["cache-control"] == "no-cache", "the page itself is asked for anew"


def test_episodes_are_rows(site):
    rows = {row["name"]: row for row in get(site[1], "/api/episodes")[1]["episodes"]}
    assert set(rows) == {"some/e000", "some/e001", "some/e002", "pictures", "broken"}
    assert rows["some/e002"]["outcome"] == "failure" and rows["some/e002"]["cause"] == "tipped"
    assert rows["some/e000"]["human"] == 1.0 and rows["some/e000"]["seconds"] == 1.6
    assert rows["pictures"]["human"] == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.parametrize(
    "name",
    ["../outside.json", "..", "", ".", "/etc", "some", "some/../pictures", "pictures/", "some/e00",
     "some/e000/episode.json", "%2e%2e", "pictures\0", "x" * 5000],
)  # fmt: skip
def test_what_is_not_an_episode_of_the_collection_is_refused(site, name):
    for path in ("episode", "series", "thumbnail", "picture"):
        status, _, body = ask(f"{site[1]}/api/{path}?episode={quote(name)}&camera=front&number=0")
        assert status == 404, path
        assert "error" in json.loads(body)
    assert save(site[1], name, {"revision": 0, "changes": {"cause": "x"}})[0] == 404
    assert not (site[0].parent / "annotations.json").exists()


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fcli.py",
             "/report?name=0/../../outside.json", "/report?name=/etc/passwd",
             "/api/figures?name=0/bench/../../outside.json"],
)  # fmt: skip
def test_files_outside_are_refused(site, path):
    assert ask(site[1] + path)[0] in (404, 422)


def test_pictures_are_the_recorded_bytes(site):
    status, headers, jpeg = ask(f"{site[1]}/api/picture?episode=pictures&camera=wrist&number=7")
    assert status == 200 and headers["content-type"] == "image/jpeg"
    assert jpeg in next((site[0] / "pictures").glob("*.mcap")).read_bytes()
    assert abs(int(decode_jpeg(jpeg)[..., 0].mean()) - 28) < 3  # 4 per step
    for wrong in ("number=30", "number=-1", "number=1e3", "number=", "camera=left&number=0"):
        assert ask(f"{site[1]}/api/picture?episode=pictures&camera=wrist&{wrong}")[0] == 422, wrong


def test_thumbnail_is_the_last_picture(site):
    status, _, jpeg = ask(f"{site[1]}/api/thumbnail?episode=pictures")
    assert status == 200 and abs(int(decode_jpeg(jpeg)[..., 0].mean()) - 4 * 29) < 4
    assert ask(f"{site[1]}/api/thumbnail?episode=some/e000")[0] == 204


def test_series_follow_the_control_steps(site):
    status, values = get(site[1], "/api/series?episode=pictures")
    assert status == 200 and values["steps"] == 30
    assert values["seconds"][:3] == [0.0, 0.04, 0.08]
    names = [values["sources"][value] for value in values["source"]]
    assert names == ["policy"] * 10 + ["human"] * 10 + ["policy"] * 10
    assert values["cameras"]["front"]["rows"] == list(range(30))
    assert values["position"][0][0] == pytest.approx(0.45, abs=1e-3)  # 0.4 + 0.05 cos 0
    # the command leads the measurement by one step
    assert values["command_position"][0][3] == values["position"][0][4]


def test_a_broken_bag_says_so_and_can_still_be_excluded(site):
    status, values = get(site[1], "/api/series?episode=broken")
    assert status == 422 and "broken" in values["error"]
    assert get(site[1], "/api/episode?episode=broken")[0] == 200
    status, after = save(site[1], "broken", {"revision": 0, "changes": {"use_for_actor": False}})
    assert status == 200 and after["current"]["use_for_actor"] is False
    status, after = save(site[1], "broken", {"revision": 1, "changes": {"stages": [[0, "a"]]}})
    assert status == 422


def test_annotations_go_in_by_step_and_come_back_by_step(site):
    segments, stages = [[3, 8], [20, 30]], [[0, "reach"], [12, "place"]]
    changes = {"interventions": segments, "stages": stages, "outcome": "failure"}
    status, after = save(site[1], "pictures", {"revision": 0, "author": "ann", "changes": changes})
    assert status == 200 and after["current"]["interventions"] == segments
    current = read_annotations(site[0] / "pictures").current
    start = factories.START_NS
    # the second segment ends where the episode does: one step behind its last one
    assert list(current.interventions)[1] == (start + 20 * 40_000_000, start + 30 * 40_000_000)
    assert after["history"][-1]["author"] == "ann"
    _, values = get(site[1], "/api/series?episode=pictures")
    assert values["annotations"]["current"]["stages"] == stages
    assert sum(values["human"]) == 15 and values["stage"][11:13] == ["reach", "place"]
    rows = {row["name"]: row for row in get(site[1], "/api/episodes")[1]["episodes"]}
    assert rows["pictures"]["outcome"] == "failure" and rows["pictures"]["human"] == 0.5


def test_the_second_of_two_editors_is_told(site):
    assert save(site[1], "some/e000", {"revision": 0, "changes": {"cause": "mine"}})[0] == 200
    status, answer = save(site[1], "some/e000", {"revision": 0, "changes": {"cause": "theirs"}})
    assert status == 409 and "changed since revision 0" in answer["error"]
    assert read_annotations(site[0] / "some/e000").current.cause == "mine"


@pytest.mark.parametrize(
    "request_",
    [{}, {"revision": 0}, {"revision": "0", "changes": {"cause": ""}}, {"revision": True, "undo": True},
     {"revision": 0, "changes": {"path": "/etc"}}, {"revision": 0, "changes": {"outcome": "good"}},
     {"revision": 0, "changes": {"interventions": [[5, 2]]}}, {"revision": 0, "undo": True},
     {"revision": 0, "changes": {"interventions": [[0, 99]]}},
     {"revision": 0, "changes": {"stages": [[0.5, "x"]]}}, {"revision": 0, "changes": {"stages": 3}},
     {"revision": 0, "changes": {"note": "x" * 20_000}}, {"revision": 0, "revert": 7},
     {"revision": 0, "author": 3, "changes": {"cause": "x"}}],
)  # fmt: skip
def test_impossible_changes_are_refused_in_words(site, request_):
    status, answer = save(site[1], "some/e001", request_)
    assert status == 422 and answer["error"]
    assert read_annotations(site[0] / "some/e001").revision == 0


def test_changes_from_another_site_are_refused(site):
    change = {"revision": 0, "changes": {"cause": "x"}}
    assert save(site[1], "some/e001", change, Origin="http://evil.example")[0] == 403
    assert save(site[1], "some/e001", change, Content_Type="text/plain")[0] == 403
    assert ask(f"{site[1]}/api/annotate?episode=some/e001")[0] == 405
    assert ask(f"{site[1]}/api/annotate?episode=some/e001", data=b"[" * 99999)[0] == 422


def test_reports_run_nothing(site):
    status, listed = get(site[1], "/api/results")
    assert {file["name"] for file in listed["files"]} == {
        "0/bench/report.html",
        "0/bench/results.json",
    }
    status, headers, body = ask(f"{site[1]}/report?name=0/bench/report.html")
    assert status == 200 and b"<script>" in body
    assert headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert get(site[1], "/api/figures?name=0/bench/results.json") == (200, {"n": 3, "share": "NaN"})
    assert ask(f"{site[1]}/report?name=0/bench/results.json")[0] == 422


def test_undo_goes_back_one_change_after_the_other(tmp_path):
    path = factories.write_episode(tmp_path / "e", factories.Recipe(steps=3))

    def undo():
        target = undo_target(read_annotations(path))
        return None if target is None else revert(path, target).current.cause

    assert undo() is None
    for cause in ("a", "b", "c"):
        annotate(path, cause=cause)
    assert [undo(), undo()] == ["b", "a"]
    annotate(path, cause="d")
    assert [undo(), undo()] == ["a", None]  # the second is back at what was recorded
    assert undo_target(read_annotations(path)) is None
    assert read_annotations(path).revision == 8


def test_quality_names_what_is_wrong(tmp_path):
    path = factories.write_episode(tmp_path / "e", factories.Recipe(steps=3))
    (entry,) = Collection(path)
    entry.content.statistics.update(silent=[])
    assert quality(entry.content) == []
    streams = {
        "/a": {"dropped": 3, "rate_hz": 25, "max_gap_ms": 900},
        "/b": {"max_gap_ms": 9999},
        "/diagnostics": {"dropped": 7},
    }
    entry.content.statistics.update(streams=streams, silent=["/c", "/diagnostics"])
    flags = quality(entry.content)
    assert [word for word, _ in flags] == ["dropped", "late", "silent"]
    assert "diagnostics" not in str(flags) and "/b" not in str(flags)
    entry.content.statistics.update(streams="rubbish", silent=7)
    assert quality(entry.content) == []


def test_only_a_named_interface_is_served(tmp_path, capsys):
    options = _options("web")
    assert options.host == "127.0.0.1" and is_loopback(options.host)
    assert is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("robot-pc")
    assert address("::1", 80, "t") == "http://[::1]:80/?token=t"
    with pytest.raises(WebError, match="no such directory"):
        options = _options("web", str(tmp_path / "none"))
        options.run(options)


def test_a_taken_port_is_an_error_only_if_it_was_named():
    first = listen("127.0.0.1", 0)
    taken = first.getsockname()[1]
    with first, pytest.raises(WebError, match=f"127.0.0.1:{taken}: .*--port"):
        listen("127.0.0.1", taken)
    with pytest.raises(WebError, match=r"--host no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 0)


def _options(*arguments):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(arguments)


def test_live_page_without_a_command_it_knows(site):
    status, _, body = ask(f"{site[1]}/api/live/command", data=b"[]", token=web_pages.TOKEN)
    assert status == 422 and b"no JSON object" in body
    assert ask(f"{site[1]}/api/live/picture?camera=front")[0] == 404
    _, values = get(site[1], "/api/live/keys")
    actions = {row["action"]: row["keys"] for row in values["bindings"]}
    assert actions["toggle"] == [" "] and "quit" not in actions and "tipped" in values["causes"]
