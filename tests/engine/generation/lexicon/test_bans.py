"""What is banned is never said, however hard it is pushed, and nothing else is."""

import re
import unicodedata

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.generation.lexicon import bans as bans_module
from engine.generation.lexicon.bans import Bans
from engine.generation.lexicon.phrases import Place
from tests.engine.generation.lexicon.tokenizers import END, KINDS, tokenizer, vocabulary

CPU = torch.device("cpu")
BANNED = ("me", "I", "wrong", "refund", "as an AI", "corporate", "coins", "straße", "café")
UNSPACED = ("您好", "作为人工智能", "喵", "😀")


def bans(kind: str, *texts: str) -> Bans:
    return Bans(vocabulary(kind), texts, device=CPU)


def say(ban: Bans, kind: str, scores: list[torch.Tensor], *, start: str = "") -> list[int]:
    """The tokens that are likeliest by `scores`, up to the end."""
    place, said = ban.phrases.walk(Place(), start.encode())[0], []
    for number, score in enumerate(scores):
        logits = score.clone()
        ban.restrain(logits, place, is_last=number + 1 == len(scores))
        token = int(logits.argmax())
        assert torch.isfinite(logits[token])
        if token == END:
            break
        said.append(token)
        place, found = ban.phrases.walk(place, vocabulary(kind).pieces[token])
        assert not found
    return said


def text_of(kind: str, ids: list[int]) -> str:
    """As it is decoded; where some decoders make nothing of a whole row of bytes, as it is without them."""
    decoded = tokenizer(kind).decode(ids)
    if "\ufffd" not in decoded:
        return decoded
    return b"".join(vocabulary(kind).pieces[token] for token in ids).decode("utf-8", "replace")


def has_word(text: str, word: str) -> bool:
    """Found in another way than the code under test does it."""
    text, word = (" ".join(unicodedata.normalize("NFC", one).casefold().split()) for one in (text, word))
    edge = r"(?<!\w)", r"(?!\w)"
    return re.search(f"{edge[0] if word[0].isascii() else ''}{re.escape(word)}{edge[1]}", text) is not None


def forced(kind: str, text: str, *, push: float = 1e4) -> list[torch.Tensor]:
    """Scores that all but force this text."""
    ids = tokenizer(kind).encode(text, add_special_tokens=False).ids
    scores = []
    for token in [*ids, END]:
        score = torch.zeros(vocabulary(kind).size)
        score[token] = push
        scores.append(score)
    return scores


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), words=st.lists(st.sampled_from(BANNED), min_size=1, max_size=9))
def test_no_banned_word_is_ever_said(kind: str, seed: int, words: list[str]) -> None:
    """Scores are drawn, and the tokens of banned words are pushed one after another, then the end of the word."""
    ban, draw = bans(kind, *BANNED), torch.Generator().manual_seed(seed)
    text = " ".join(words) + " and " + ", ".join(words)
    scores = [score + 3e4 * torch.rand(len(score), generator=draw) for score in forced(kind, text, push=2e4)]
    said = text_of(kind, say(ban, kind, scores))
    assert [word for word in BANNED if has_word(said, word)] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text", ["refund me.", "ME!", "Me", " me", "tell me", "As an\nAI", "it is wrong", "I", "¡Café!"]
)
def test_what_is_pushed_with_all_might_is_not_said(kind: str, text: str) -> None:
    said = text_of(kind, say(bans(kind, *BANNED), kind, forced(kind, text)))
    assert not [word for word in BANNED if has_word(said, word)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["meet some", "wrongly", "refunded", "It is", "as an apple", "home", "came", "naïve"])
def test_longer_words_stay_possible(kind: str, text: str) -> None:
    """Also where they are spelled through the banned one."""
    said = text_of(kind, say(bans(kind, *BANNED), kind, forced(kind, text)))
    assert said.strip() == text


def test_on_the_way_to_a_longer_word_a_detour_is_all_that_it_costs() -> None:
    ban = bans("byte", "me")
    place, _ = ban.phrases.walk(Place(), b"tell m")
    letter = tokenizer("byte").token_to_id("e")
    logits = torch.zeros(vocabulary("byte").size)
    ban.restrain(logits, place, is_last=False)
    assert logits[letter] == -bans_module.DETOUR
    assert (logits < 0).sum() == 2  # "E" as well
    ban.restrain(logits, place, is_last=True)
    assert logits[letter] == -torch.inf


@pytest.mark.parametrize("kind", ["bytes", "byte", "sentencepiece"])
@pytest.mark.parametrize("word", UNSPACED)
def test_scripts_without_spaces_have_no_words_to_hide_in(kind: str, word: str) -> None:
    text = f"他说{word}了"
    said = text_of(kind, say(bans(kind, *UNSPACED), kind, forced(kind, text)))
    assert word not in said
    assert "说" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_may_have_begun_before(kind: str) -> None:
    """In words that stand there already, with a token that has no space in front of it."""
    ids = [token for token, text in enumerate(vocabulary(kind).texts) if text == "e"]
    assert ids
    scores = []
    for token in (ids[0], END):
        score = torch.zeros(vocabulary(kind).size)
        score[token] = 1e4
        scores.append(score)
    assert say(bans(kind, "me"), kind, scores, start="Tell m") != [ids[0]]
    assert say(bans(kind, "me"), kind, scores, start="Tell hom")[:1] == [ids[0]]


@given(st.sampled_from(["ＭＥ", "mE", "m\u200be", "ⅿe"]))
def test_a_word_is_known_in_any_form(form: str) -> None:
    ban = bans("byte", "me")
    place, _ = ban.phrases.walk(Place(), f"tell {form}".encode())
    assert place.ended


def test_half_a_sign_ends_a_word() -> None:
    """It may become a letter, but then the word would be found too late."""
    phrases = bans("byte", "me").phrases
    assert phrases.walk(Place(), b"me\xe4")[1] == (0,)
    assert phrases.walk(Place(), "meä".encode())[1] == ()


def test_accents_make_other_words_in_whichever_form_they_come() -> None:
    ban = bans("byte", "cafe", "naïve")
    for text, is_banned in [("café ", False), ("cafe\u0301 ", False), ("cafe ", True), ("nai\u0308ve ", True)]:
        assert bool(ban.phrases.walk(Place(), text.encode())[1]) is is_banned


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_without_a_way_on(kind: str) -> None:
    """Every letter is banned as a word, and some words: still something can be said at each step, and the end."""
    everything = [*"abcdefghijklmnopqrstuvwxyz", *BANNED, *UNSPACED, "the", "of", "and"]
    ban, draw = bans(kind, *everything), torch.Generator().manual_seed(3)
    scores = [5 * torch.randn(vocabulary(kind).size, generator=draw) for _ in range(80)]
    said = text_of(kind, say(ban, kind, scores))
    assert not [word for word in everything if word.isascii() and has_word(said, word)]


def test_where_no_longer_word_exists_the_last_token_is_forbidden() -> None:
    """With this vocabulary nothing can follow but a boundary."""
    ban, known = bans("byte", "me"), vocabulary("byte")
    place, _ = ban.phrases.walk(Place(), b"m")
    letter = tokenizer("byte").token_to_id("e")
    assert letter in ban.at(place).hardly
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(known.__dict__, "joined_starts", frozenset())
        assert letter in bans("byte", "me").at(place).never


def test_without_phrases_nothing_is_forbidden() -> None:
    forbidden = bans("bytes").at(Place())
    assert len(forbidden.never) == len(forbidden.hardly) == 0
    assert len(bans("bytes", "\u200b", " ").phrases.folded) == 0


@given(st.lists(st.text(min_size=1, max_size=6), max_size=6), st.text(max_size=30), st.integers(1, 5))
def test_phrases_are_found_alike_however_the_text_is_cut(texts: list[str], text: str, size: int) -> None:
    assume(all(one.strip() for one in texts))
    ban, data = bans("byte", *texts), text.encode()
    whole, found = ban.phrases.walk(Place(), data)
    place, piecewise = Place(), []
    for start in range(0, len(data), size):
        place, more = ban.phrases.walk(place, data[start : start + size])
        piecewise += more
    assert set(found) | set(whole.ended) <= set(piecewise) | set(place.ended)


def test_many_banned_words_are_looked_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind each there may be a longer one that is banned, too: to follow them all would take minutes."""
    num_walks = 0
    walk = bans_module.Phrases.walk

    def counted(phrases: bans_module.Phrases, place: Place, piece: bytes) -> tuple[Place, tuple[int, ...]]:
        nonlocal num_walks
        num_walks += 1
        return walk(phrases, place, piece)

    monkeypatch.setattr(bans_module.Phrases, "walk", counted)
    letters = "abcdefghijklmnopqrst"
    ban = bans("bytes", *letters, *(a + b for a in letters for b in letters if a < "s"))
    ban.at(Place())
    assert num_walks < 3 * vocabulary("bytes").size
