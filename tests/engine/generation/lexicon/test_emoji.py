"""Emoji: none, or about so many a sentence, whatever tokens they are spelled in."""

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.generation.lexicon.emoji import DAMPING, EmojiRate, EmojiTokens, NoEmoji, is_emoji
from engine.generation.lexicon.sentences import Sentences
from engine.generation.lexicon.vocabulary import read
from tests.engine.generation.lexicon.tokenizers import tokenizer, vocabulary

CPU = torch.device("cpu")
KINDS = ("bytes", "byte", "sentencepiece")


def tokens_of(kind: str) -> EmojiTokens:
    return EmojiTokens(vocabulary(kind), device=CPU)


@pytest.mark.parametrize("sign", "😀🎉❤☀👩🏽🇩✨🤖")
def test_pictures_are_emoji(sign: str) -> None:
    assert is_emoji(sign)


@pytest.mark.parametrize("sign", "a1#*©™→…“喵가я☆ \n")
def test_letters_and_signs_are_none(sign: str) -> None:
    assert not is_emoji(sign)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_none_is_ever_said_that_is_forbidden(kind: str, seed: int) -> None:
    """Bytes that could become one are pushed."""
    forbid, known = NoEmoji(tokens_of(kind)), vocabulary(kind)
    draw, text, pending = torch.Generator().manual_seed(seed), "", b""
    beyond_ascii = torch.tensor([not piece.isascii() for piece in known.pieces])
    for _ in range(30):
        logits = 5 * torch.randn(known.size, generator=draw) + 20 * beyond_ascii
        forbid.restrain(logits, pending)
        assert logits.isfinite().any()
        more, pending = read(pending, known.pieces[int(logits.argmax())])
        text += more
    assert not any(map(is_emoji, text)), text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["您好，喵。", "“Ahoy”… – né", "→ ☆ ©", "가나다", "नमस्ते", "𠮷野"])
def test_other_scripts_stay_possible(kind: str, text: str) -> None:
    """They share first bytes with emoji."""
    tokens, known, pending = tokens_of(kind), vocabulary(kind), b""
    for token in tokenizer(kind).encode(text, add_special_tokens=False).ids:
        assert token not in tokens.forbidden(pending)
        _, pending = read(pending, known.pieces[token])


@pytest.mark.parametrize("kind", KINDS)
def test_an_emoji_is_forbidden_where_it_begins(kind: str) -> None:
    """And not where nothing but emoji can follow."""
    tokens, known = tokens_of(kind), vocabulary(kind)
    for sign in "😀🎉🤖":
        pending = b""
        for token in tokenizer(kind).encode(f"a{sign}", add_special_tokens=False).ids:
            if token in tokens.forbidden(pending):
                break
            _, pending = read(pending, known.pieces[token])
        assert len(pending) < 3, "all of it but the end was allowed"


def said(kind: str, rate: float, *, num_sentences: int = 200, push: float = 0.0, seed: int = 1) -> float:
    """Emoji a sentence, of a model that says nothing but 'Hi. ' unless it is steered; `push` makes it like emoji."""
    known, tokens, sentences = vocabulary(kind), tokens_of(kind), Sentences()
    steering = EmojiRate(tokens, rate=rate, chance=Random(seed))
    script = tokenizer(kind).encode(" Hi.", add_special_tokens=False).ids
    text, pending, place = "", b"", 0
    while sentences.num < num_sentences:
        logits = torch.zeros(known.size)
        logits[script[place]] = 5.0
        logits[tokens.starts] += push
        steering.steer(logits, sentences, pending)
        token = int(logits.argmax())
        place = (place + 1) % len(script) if token == script[place] else place
        more, pending = read(pending, known.pieces[token])
        text += more
        sentences.add(more)
        steering.note(more, sentences)
    assert "\ufffd" not in text
    return sum(map(is_emoji, text)) / num_sentences


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 1.6])
def test_about_so_many_are_said_as_wished(kind: str, rate: float) -> None:
    assert said(kind, rate) == pytest.approx(rate, abs=0.12)


def test_too_many_are_held_back() -> None:
    assert said("bytes", 0.2, push=4.0 + DAMPING / 2) == pytest.approx(0.2, abs=0.12)


def test_one_that_is_far_from_likely_is_not_forced() -> None:
    assert said("bytes", 1.0, push=-40.0, num_sentences=30) == 0


def test_parts_of_one_count_once() -> None:
    steering, sentences = EmojiRate(tokens_of("bytes"), rate=3.0, chance=Random(1)), Sentences()
    sentences.add("Hi.")
    steering.note("Hi.", sentences)
    steering.note("👩🏽\u200d💻", sentences)
    assert steering._num_wanted == 2
