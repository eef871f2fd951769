"""Stop strings, however the text is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.generation.stops import StopStrings


def shown(pieces: list[str], stop: tuple[str, ...]) -> tuple[str, bool]:
    stops = StopStrings(stop)
    text = "".join(stops.add(piece) for piece in pieces)
    return text + stops.finish(), stops.is_stopped


@pytest.mark.parametrize("pieces", [["one END two"], ["one E", "ND two"], list("one END two")])
def test_the_text_ends_before_a_stop_string(pieces: list[str]) -> None:
    assert shown(pieces, ("END",)) == ("one ", True)


def test_the_first_of_several_counts() -> None:
    assert shown(["a 2 b 1 c"], ("1", "2")) == ("a ", True)


def test_what_only_looked_like_one_is_shown_in_the_end() -> None:
    stops = StopStrings(("\nUser:",))
    assert stops.add("Hello.\nUs") == "Hello."
    assert stops.finish() == "\nUs"


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert StopStrings(("",)).add("text") == "text"


@given(st.lists(st.text("ab", max_size=4), max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_it_is_the_same_however_the_text_is_cut(pieces: list[str], stop: list[str]) -> None:
    whole = "".join(pieces)
    # The shortest beginning with a stop string in it decides: nothing later was known yet.
    ends = [end for end in range(len(whole) + 1) if any(one in whole[:end] for one in stop)]
    text, is_stopped = shown(list(whole), tuple(stop))
    assert is_stopped == bool(ends)
    assert text == (
        whole if not ends else whole[: min(whole[: ends[0]].index(one) for one in stop if one in whole[: ends[0]])]
    )
    assert not any(one in text for one in stop)


def test_a_stop_string_may_have_begun_before() -> None:
    stops = StopStrings(("\nUser:",), before="Hello.\nUs")
    assert stops.add("er") == ""
    assert stops.add(": and") == ""
    assert stops.is_stopped


@given(
    st.text("ab", max_size=6), st.lists(st.text("ab", max_size=4), max_size=8), st.text("ab", min_size=1, max_size=4)
)
def test_of_what_came_before_nothing_is_shown_again(before: str, pieces: list[str], stop: str) -> None:
    stops = StopStrings((stop,), before=before)
    text = "".join(stops.add(piece) for piece in pieces) + stops.finish()
    # One that lies wholly before has done no harm; what counts is where one ends.
    whole = before + "".join(pieces)
    ends = [end for end in range(len(before) + 1, len(whole) + 1) if whole[:end].endswith(stop)]
    assert stops.is_stopped == bool(ends)
    expected = whole[: max(ends[0] - len(stop), len(before))] if ends else whole
    assert before + text == expected
