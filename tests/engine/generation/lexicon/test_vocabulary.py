"""Tokens as bytes: whatever the tokenizer, joined they are the text that it decodes."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine.generation.lexicon.vocabulary import Vocabulary, read
from tests.engine.generation.lexicon.tokenizers import END, KINDS, LINES, tokenizer, vocabulary


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", LINES)
def test_the_pieces_of_a_text_are_its_bytes(kind: str, line: str) -> None:
    ids = tokenizer(kind).encode(line, add_special_tokens=False).ids
    joined = b"".join(vocabulary(kind).pieces[token] for token in ids).decode()
    assert joined.strip() == tokenizer(kind).decode(ids).strip()


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data())
def test_the_pieces_of_any_tokens_are_what_is_decoded(kind: str, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.integers(3, tokenizer(kind).get_vocab_size() - 1), min_size=1, max_size=12))
    ids = [*tokenizer(kind).encode("a", add_special_tokens=False).ids, *drawn]
    joined = b"".join(vocabulary(kind).pieces[token] for token in ids)
    # What some decoders make of bytes that are no text differs from what others do.
    assume("\ufffd" not in joined.decode("utf-8", "replace"))
    assert joined.decode().strip() == tokenizer(kind).decode(ids).strip()


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_and_ids_without_a_meaning_add_nothing(kind: str) -> None:
    assert [vocabulary(kind).pieces[token] for token in (0, 1, END, vocabulary(kind).size - 1)] == [b""] * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", ["me", "shiny", "Grub"])
def test_a_word_is_spelled_as_the_tokenizer_does(kind: str, word: str) -> None:
    spelled = [b"".join(vocabulary(kind).pieces[token] for token in one) for one in vocabulary(kind).spellings(word)]
    assert spelled
    assert {text.strip() for text in spelled} == {word.encode()}
    assert any(text.startswith(b" ") for text in spelled)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["m", " m", "me", " gr", "i", "喵"])
def test_tokens_are_found_by_how_they_begin_and_what_they_hold(kind: str, text: str) -> None:
    texts = dict(enumerate(vocabulary(kind).texts))
    assert set(vocabulary(kind).beginning_with(text)) == {token for token, one in texts.items() if one.startswith(text)}
    assert set(vocabulary(kind).containing(text)) == {token for token, one in texts.items() if text in one}


@given(st.text(max_size=8), st.integers(1, 4))
def test_signs_come_out_once_they_are_whole(text: str, size: int) -> None:
    data, said, pending = text.encode(), "", b""
    for start in range(0, len(data), size):
        more, pending = read(pending, data[start : start + size])
        said += more
    assert (said, pending) == (text, b"")


def test_a_vocabulary_has_a_tokenizer_of_its_own() -> None:
    """The engine's own is at work meanwhile, and has settings that change."""
    mine = tokenizer("bytes")
    mine.enable_truncation(1)
    try:
        assert any(len(one) > 1 for one in Vocabulary(mine, size=10).spellings("shiny cursed coin"))
    finally:
        mine.no_truncation()
