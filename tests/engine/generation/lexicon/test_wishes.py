"""Words that are liked come now and then, and never push out what a text needs."""

from random import Random

import pytest
import torch

from engine.generation.lexicon.phrases import Place
from engine.generation.lexicon.sentences import Sentences
from engine.generation.lexicon.wishes import BEGINNING, MARGIN, Catchphrase, Liking, Spellings
from tests.engine.generation.lexicon.tokenizers import KINDS, tokenizer, vocabulary

CPU = torch.device("cpu")


class Teller:
    """Follows one reply with a liking for words, as the processor does."""

    def __init__(self, kind: str, *words: str, said_before: str = "") -> None:
        self.known = vocabulary(kind)
        self.kind = kind
        self.words = Spellings(self.known, words)
        self.liking = Liking(self.words, said_before=said_before, device=CPU)
        self.place, self.sentences = Place(), Sentences()

    def say(self, text: str) -> None:
        for token in tokenizer(self.kind).encode(text, add_special_tokens=False).ids:
            self.take(token)

    def take(self, token: int) -> None:
        was_in_word = self.place.is_joined
        self.place, found = self.words.phrases.walk(self.place, self.known.pieces[token])
        self.sentences.add(self.known.pieces[token].decode("utf-8", "ignore"))
        self.liking.note(token, found, self.sentences, was_in_word=was_in_word)

    def lifted(self, logits: torch.Tensor | None = None) -> dict[bytes, float]:
        """What is likelier now, and by how much."""
        before = torch.zeros(self.known.size) if logits is None else logits
        after = before.clone()
        self.liking.wish(after, self.sentences, self.place)
        changed = (after - before).nonzero()[:, 0].tolist()
        return {self.known.pieces[token]: float(after[token] - before[token]) for token in changed}


def with_single_tokens(kind: str) -> str:
    """A word that this vocabulary has whole."""
    return next(
        word for word in ("coins", "me", "is", "a") if any(len(one) == 1 for one in vocabulary(kind).spellings(word))
    )


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece", "wordpiece"])
def test_a_liked_word_is_likelier_where_a_word_begins(kind: str) -> None:
    word = with_single_tokens(kind)
    teller = Teller(kind, word)
    teller.say("The")
    lifted = teller.lifted()
    assert any(piece.strip().lower() == word.encode() for piece in lifted)
    assert all(piece.startswith(b" ") for piece in lifted), "within a word it would be another one"
    assert 0 < max(lifted.values()) <= BEGINNING


@pytest.mark.parametrize("kind", KINDS)
def test_never_from_far_behind(kind: str) -> None:
    teller = Teller(kind, "coins", "me", "a")
    logits = torch.zeros(teller.known.size)
    logits[-1] = MARGIN + 0.1
    assert teller.lifted(logits) == {}


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece", "wordpiece"])
def test_a_word_that_was_said_has_had_its_due(kind: str) -> None:
    word = with_single_tokens(kind)
    teller = Teller(kind, word)
    assert teller.lifted()
    teller.say(f"{word} , and")
    assert teller.lifted() == {}
    teller.say(". The")
    assert teller.lifted() == {}
    assert Teller(kind, word, said_before=f"So {word}!").lifted() == {}


def test_after_one_the_next_waits_for_another_sentence_and_two_are_enough() -> None:
    teller = Teller("bytes", "me", "is", "a")
    teller.say("And me , so")
    assert teller.lifted() == {}
    teller.say(". So")
    assert set(teller.lifted()) <= {b" is", b" a"}
    assert teller.lifted()
    teller.say(" is . And")
    assert teller.lifted() == {}


def test_a_word_that_has_begun_is_gone_on_with() -> None:
    teller = Teller("byte", "shiny")
    teller.say("a")
    assert teller.lifted() == {}, "one letter is too little of a word to wish for"
    teller.say(" sh")
    assert set(teller.lifted()) == {b"i"}
    teller.say("o")
    assert teller.lifted() == {}
    teller.say("wsh")
    assert teller.lifted() == {}, "within a word none begins"


class Always(Random):
    def random(self) -> float:
        return 0.0


class Never(Random):
    def random(self) -> float:
        return 0.99


def catchphrase(kind: str, chance: Random, *, said_before: tuple[str, ...] = ()) -> tuple[Spellings, Catchphrase]:
    phrases = Spellings(vocabulary(kind), ["Grub makes good price."])
    return phrases, Catchphrase(phrases, said_before=said_before, chance=chance, device=CPU)


def pushes(kind: str, wish: Catchphrase, text: str, *, behind: float = 0.0) -> tuple[list[float], str]:
    """How much each token of `text` is pushed, each `behind` the likeliest; and the tokens."""
    known, sentences, place, found = vocabulary(kind), Sentences(), Place(), []
    phrases = wish._phrases.phrases
    for token in tokenizer(kind).encode(text, add_special_tokens=False).ids:
        logits = torch.full((known.size,), -50.0)
        logits[0], logits[token] = behind, 0.0
        wish.wish(logits, sentences, place)
        found.append(float(logits[token]))
        place, hits = phrases.walk(place, known.pieces[token])
        sentences.add(known.pieces[token].decode("utf-8", "ignore"))
        wish.note(token, hits)
    return found, text


@pytest.mark.parametrize("kind", ["bytes", "byte", "wordpiece"])
def test_a_catchphrase_grows_likelier_the_more_of_it_stands_there_and_comes_once(kind: str) -> None:
    _, wish = catchphrase(kind, Always())
    text = "Grub makes good price."
    first = len(tokenizer(kind).encode("So.", add_special_tokens=False).ids)
    length = len(tokenizer(kind).encode(f" {text}", add_special_tokens=False).ids)
    found, _ = pushes(kind, wish, f"So. {text} {text}")
    assert not any(found[:first])
    phrase = found[first : first + length]
    assert phrase == sorted(phrase)
    assert phrase[-1] > phrase[0] + 3 > 3
    assert not any(found[first + length :])


def test_a_catchphrase_is_wished_for_behind_an_answer_and_where_it_is_likely() -> None:
    for text, is_wished in (
        ("Grub makes good price.", False),
        ("so Grub makes good price.", False),
        ("So. Grub makes good price.", True),
    ):
        assert any(pushes("bytes", catchphrase("bytes", Always())[1], text)[0]) is is_wished
    assert not any(pushes("bytes", catchphrase("bytes", Always())[1], "So. Grub makes good price.", behind=20.0)[0])


def test_a_catchphrase_rests() -> None:
    for wish in (
        catchphrase("bytes", Never())[1],
        catchphrase("bytes", Always(), said_before=("Hm. grub makes GOOD price.",))[1],
    ):
        assert not any(pushes("bytes", wish, "So. Grub makes good price.")[0])
