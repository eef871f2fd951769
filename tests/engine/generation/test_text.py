"""Text that may be shown: however tokens cut it, and however stop strings lie across them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from engine.generation.text import ReplyText
from tests.engine.tiny import tiny_tokenizer

BACKEND = tiny_tokenizer().backend_tokenizer


def stream(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    reply = ReplyText(BACKEND, stop=stop)
    shown = []
    for token in BACKEND.encode(text, add_special_tokens=False).ids:
        shown.append(reply.add(token))
        if reply.is_stopped:
            break
    return [*shown, reply.finish()], reply.is_stopped


@given(st.text(max_size=40).filter(lambda text: "<" not in text))
def test_every_character_arrives_whole_and_once(text: str) -> None:
    shown, _ = stream(text)
    assert "".join(shown) == text
    assert all("\ufffd" not in piece for piece in shown) or "\ufffd" in text


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("I am fine.\nUser: and", ("\nUser:",), "I am fine."),
        ("a stop that stays whole", ("stopped",), "a stop that stays whole"),
        ("ends in a st", ("stop",), "ends in a st"),
        ("aaab and more", ("aab",), "a"),
        ("two: first", ("first", "two"), ""),
        ("日本語テスト終わり続き", ("終わり",), "日本語テスト"),
        ("nothing", ("",), "nothing"),
    ],
)
def test_stop_strings_never_leak(text: str, stop: tuple[str, ...], expected: str) -> None:
    shown, is_stopped = stream(text, stop)
    assert "".join(shown) == expected
    assert is_stopped == (expected != text)


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_any_stop_string_ends_the_text_at_its_first_place(text: str, stops: list[str]) -> None:
    shown, is_stopped = stream(text, tuple(stops))
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    shown_text = "".join(shown)
    if not ends:
        assert shown_text == text
    else:
        assert is_stopped
        assert text.startswith(shown_text)
        assert not any(stop in shown_text for stop in stops)


@given(st.lists(st.integers(4, 259), max_size=30))
def test_bytes_that_are_no_text_break_nothing(tokens: list[int]) -> None:
    reply = ReplyText(BACKEND)
    for token in tokens:
        reply.add(token)
    reply.finish()


def test_control_tokens_are_not_shown() -> None:
    reply = ReplyText(BACKEND)
    assert "".join(reply.add(token) for token in (1, *BACKEND.encode("ok").ids, 2)) == "ok"


def test_the_space_before_a_word_stays_where_the_reply_has_begun() -> None:
    """As SentencePiece has it: no space in front of the first word of all."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "\u2581Well": 1, "\u2581then": 2}, "<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    assert ReplyText(tokenizer).add(2) == "then"
    assert ReplyText(tokenizer, reply_start="Well").add(2) == " then"
    assert ReplyText(tokenizer, reply_start="Well ").add(2) == "then"
