"""The client: UTF-16 arithmetic, and its own secret."""

from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.telegram.client import TelegramClient, split_text, utf16_length, utf16_slice
from bot.adapters.telegram.formatting import formatted_length


@given(st.text(), st.integers(min_value=2, max_value=40))
def test_pieces_fit_and_lose_nothing(text: str, max_length: int) -> None:
    pieces = split_text(text, max_length)
    assert "".join(pieces) == text
    assert all(utf16_length(piece) <= max_length for piece in pieces)


@given(st.text(alphabet="a@|\n🐕", max_size=200), st.integers(min_value=20, max_value=40))
def test_pieces_fit_by_another_measure(text: str, max_length: int) -> None:
    pieces = split_text(text, max_length, measure=formatted_length)
    assert "".join(pieces) == text
    assert all(0 < formatted_length(piece) <= max_length for piece in pieces if text)


@given(st.text(), st.text(), st.text())
def test_slices_count_like_lengths(before: str, middle: str, after: str) -> None:
    start = utf16_length(before)
    assert utf16_slice(before + middle + after, start, start + utf16_length(middle)) == middle


def test_pieces_end_behind_a_line() -> None:
    assert list(split_text("one\ntwo\nthree", 9)) == ["one\ntwo\n", "three"]


def test_its_representation_has_no_token() -> None:
    assert "secret" not in repr(TelegramClient("123456:secret"))
