"""Where a reply goes on: nothing is said twice, and nothing is lost, however the text is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.generation.joining import Joining


def added(start: str, pieces: list[str], *, may_repeat: bool = False) -> str:
    joining = Joining(start, may_repeat=may_repeat)
    return "".join(joining.add(piece) for piece in pieces)


@pytest.mark.parametrize(
    ("start", "text", "expected"),
    [
        ("Well", " then", " then"),
        ("Well ", " then", "then"),
        ("Well \n", " then", "then"),
        ("Well\n\n", "\n\n\nthen", "\nthen"),
        ("Well\n", " then", " then"),
        ("unbeliev", "able", "able"),
        ("", " then", " then"),
        (" ", " then", "then"),
    ],
)
def test_white_space_at_the_seam_stands_there_once(start: str, text: str, expected: str) -> None:
    assert added(start, [text]) == added(start, list(text)) == expected


@pytest.mark.parametrize(
    ("start", "text", "expected"),
    [
        ("Well, I", "Well, I think so.", " think so."),
        ("Well, I", "\n Well, I think so.", " think so."),
        ("Well, I ", "Well, I think so.", "think so."),
        ("Well, I", "Well, you", "Well, you"),
        ("Well, I", " think so.", " think so."),
        ("Well, I", "Well", ""),
        ("Well, I", "", ""),
        ("", " Well", " Well"),
    ],
)
def test_a_repeated_beginning_is_left_out(start: str, text: str, expected: str) -> None:
    assert added(start, [text], may_repeat=True) == added(start, list(text), may_repeat=True) == expected


def test_a_model_that_does_not_repeat_may_say_the_same_again() -> None:
    assert added("ha", ["ha!"]) == "ha!"


@given(st.text("ab \n", max_size=8), st.lists(st.text("ab \n", max_size=4), max_size=6), st.booleans())
def test_it_is_the_same_however_the_text_is_cut(start: str, pieces: list[str], may_repeat: bool) -> None:
    whole = "".join(pieces)
    assert added(start, pieces, may_repeat=may_repeat) == added(start, list(whole), may_repeat=may_repeat)


@given(st.text("ab ", max_size=8), st.text("ab ", max_size=8))
def test_whoever_repeats_it_all_is_joined_to_the_whole(start: str, rest: str) -> None:
    assert start + added(start, list(start + rest), may_repeat=True) == start + rest or not start.strip()
