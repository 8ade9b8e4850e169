"""Keys out of a terminal's bytes."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dexpie_ros.contract import SERVICES as SERVICES_OF_ROS
from dexpie_ros.control.keys import BINDINGS, SERVICES, Action, binding_of, key_name
from dexpie_ros.control.terminal_keys import KeyParser

MS = 1_000_000
SEQUENCES = (b"\x1b[A", b"\x1b[1;5C", b"\x1bOP", b"\x1b[15~", b"\x1b[<0;3;4M", b"\x1b[200~")


def test_letters_and_enter_are_keys_at_once():
    assert KeyParser().feed(b" s\r", 0) == [" ", "s", "\r"]


def test_an_escape_alone_is_a_key_after_a_tenth_of_a_second():
    parser = KeyParser()
    assert parser.feed(b"\x1b", 0) == []
    assert parser.idle(99 * MS) == []
    assert parser.idle(100 * MS) == ["\x1b"] and parser.idle(300 * MS) == []
    assert binding_of("\x1b").action is Action.EMERGENCY_STOP


def test_sequences_are_no_keys_however_they_are_torn():
    for sequence in SEQUENCES:
        for cut in range(len(sequence) + 1):
            parser = KeyParser()
            keys = parser.feed(sequence[:cut], 0) if cut else []
            keys += parser.feed(sequence[cut:] + b"s", 50 * MS)
            assert keys == ["s"], (sequence, cut)
            assert parser.idle(1000 * MS) == []


def test_where_it_is_unclear_it_was_the_escape_key():
    assert KeyParser().feed(b"\x1b\x1b[A", 0) == ["\x1b"]
    assert KeyParser().feed(b"\x1bq", 0) == ["\x1b", "q"]
    assert KeyParser().feed(b"\x1b[\x01", 0)[0] == "\x1b"
    late = KeyParser()
    late.feed(b"\x1b", 0)
    assert late.feed(b"[A", 200 * MS)[0] == "\x1b"


def test_letters_of_other_alphabets_survive_torn_bytes():
    parser = KeyParser()
    assert parser.feed("ä".encode()[:1], 0) == []
    assert parser.feed("ä".encode()[1:] + b"\xff", 1) == ["ä"]


@given(st.lists(st.sampled_from([*SEQUENCES, b"s", b" ", b"q", b"1"])), st.data())
def test_any_mix_cut_anywhere_gives_its_letters(parts, data):
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    parser, keys = KeyParser(), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        keys += parser.feed(whole[start:end], 0)
    assert keys == [part.decode() for part in parts if len(part) == 1]


def test_the_documentation_shows_every_key():
    text = (Path(__file__).parent.parent / "docs/operation.md").read_text(encoding="utf-8")
    for binding in BINDINGS:
        names = dict.fromkeys(key_name(key) for key in binding.keys)
        assert f"| {' '.join(names)} | {binding.help} |" in text


def test_every_action_has_a_service_of_the_contract():
    for action in set(Action) - {Action.SUCCESS, Action.FAILURE, Action.ABORTED}:
        assert SERVICES_OF_ROS[SERVICES[action]] == "std_srvs/srv/Trigger"
