"""The whole of it: in the loop, beside others, and where nobody asks for anything."""

from dataclasses import replace
from random import Random
from string import punctuation

import pytest
import torch

from engine.backends.local import build
from engine.generation.lexicon import lexicon_processors
from engine.generation.lexicon.lengths import MAX_PUSH, PUSH, Ending
from engine.generation.lexicon.processor import MAX_BANNED, LexiconProcessor
from engine.generation.lexicon.sentences import Sentences
from engine.generation.loop import GenerationLoop
from engine.persona import Lexicon, Persona, Voice
from engine.types import GenerationRequest, Role, Turn
from tests.engine.backends.subjects import local_config
from tests.engine.generation.lexicon.tokenizers import END, tokenizer, vocabulary
from tests.engine.generation.loops import MODEL, a_loop, a_runtime, serve
from tests.engine.generation.requests import NELL, request

CPU = torch.device("cpu")


def persona(length: str | None = None, **lexicon: object) -> Persona:
    voice = Voice() if length is None else Voice(length=length)  # type: ignore[arg-type]
    return NELL.model_copy(update={"lexicon": Lexicon(**lexicon), "voice": voice})  # type: ignore[arg-type]


def tiny_processors() -> object:
    return lexicon_processors(
        MODEL.tokenizer.backend_tokenizer, vocab_size=MODEL.vocab_size, end_ids=MODEL.end_token_ids, device=CPU
    )


TINY = tiny_processors()


def processor(asked: GenerationRequest, kind: str = "bytes") -> LexiconProcessor:
    make = lexicon_processors(tokenizer(kind), vocab_size=vocabulary(kind).size, end_ids=[END], device=CPU)
    (made,) = make(asked)
    assert isinstance(made, LexiconProcessor)
    return made


def a_lexicon_loop() -> GenerationLoop:
    return a_loop(a_runtime("torch"), make_processors=TINY)


@pytest.mark.parametrize("seed", range(2))
def test_whoever_asks_for_nothing_gets_the_same_reply_bit_by_bit(seed: int) -> None:
    asked = request("Hi!", seed=seed, temperature=1.5, max_new_tokens=40)
    assert TINY(asked) == ()
    assert TINY(request(persona=persona("long"))) == ()
    assert serve(a_lexicon_loop(), asked)[0].text == serve(a_loop(a_runtime("torch")), asked)[0].text


def test_what_is_banned_is_not_said_in_the_loop() -> None:
    """The tiny model says letters: some of them, and what a seed says without the ban."""
    asked = request("Hi!", seed=3, temperature=1.5, max_new_tokens=60)
    text = serve(a_loop(a_runtime("torch")), asked)[0].text
    letters = tuple(dict.fromkeys(letter for letter in text if letter.isascii() and letter in punctuation))
    assert letters
    banned = serve(a_lexicon_loop(), replace(asked, persona=persona(banned=letters)))[0].text
    assert not set(letters) & set(banned)
    assert banned != text


def test_a_seed_repeats_a_reply_with_everything_asked_for() -> None:
    mine = persona("short", preferred=("a", "be"), banned=("x",), catchphrases=("Arr!",), emoji_rate=0.5)
    asked = request("Hi!", seed=5, temperature=1.2, max_new_tokens=60, persona=mine)
    one, again, beside = serve(a_lexicon_loop(), asked, asked, replace(asked, persona=NELL))
    assert one.text == again.text
    assert one.text != beside.text


def test_logits_are_left_as_they_are() -> None:
    made = processor(request(persona=persona("short", preferred=("coins",), banned=("me",), emoji_rate=0)))
    logits = torch.randn(vocabulary("bytes").size)
    before = logits.clone()
    assert not torch.equal(made(logits, []), before)
    assert torch.equal(logits, before)


def test_no_wish_goes_over_a_ban() -> None:
    both = persona(preferred=("me",), banned=("me",), catchphrases=("me",))
    made = processor(request(persona=both))
    (token,) = next(one for one in vocabulary("bytes").spellings("me") if len(one) == 1)
    assert made(torch.zeros(vocabulary("bytes").size), [])[token] < 0


def test_a_reply_that_has_begun_is_gone_on_with() -> None:
    letter = tokenizer("byte").token_to_id("e")
    for start, is_banned in (("Tell m", True), ("Tell hom", False), ("Tell m \n", True), ("", False)):
        asked = replace(request(persona=persona(banned=("me",))), reply_start=start)
        assert bool(processor(asked, "byte")(torch.zeros(vocabulary("byte").size), [])[letter] < 0) is is_banned


def test_a_banned_word_that_stands_there_already_binds_nobody() -> None:
    asked = replace(request(persona=persona(banned=("me",))), reply_start="Tell me")
    assert processor(asked)(torch.zeros(vocabulary("bytes").size), [])[END] == 0


def test_the_last_token_ends_no_banned_word() -> None:
    asked = request(persona=persona(banned=("me",)), max_new_tokens=2)
    made, letters = processor(asked, "byte"), [tokenizer("byte").token_to_id(letter) for letter in "me"]
    assert made(torch.zeros(vocabulary("byte").size), letters[:1])[letters[1]] == -torch.inf


def test_a_number_of_emoji_is_kept() -> None:
    sign = tokenizer("byte").encode("😀", add_special_tokens=False).ids[1]
    for rate, is_forbidden in ((0, True), (0.0, True), (None, False)):
        made = processor(request(persona=persona("short", emoji_rate=rate)), "byte")
        first = tokenizer("byte").encode("😀", add_special_tokens=False).ids[0]
        assert bool(made(torch.zeros(vocabulary("byte").size), [first])[sign] == -torch.inf) is is_forbidden


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), ("One.", 0), ("One. Two.", 1), ("One. Two. Th", 0), ("One. Two. Three. ", 2)]
)
def test_ends_grow_likelier_with_each_sentence_over_the_promise(text: str, expected: int) -> None:
    sentences, logits = Sentences(), torch.zeros(5)
    sentences.add(text)
    Ending([4], num_sentences=2, device=CPU).push(logits, sentences)
    assert logits.tolist() == [0, 0, 0, 0, expected * PUSH]
    sentences.add("Go on. " * 50)
    Ending([4], num_sentences=2, device=CPU).push(logits := torch.zeros(5), sentences)
    assert logits[4] == MAX_PUSH


def test_only_a_length_that_somebody_asked_for_shortens() -> None:
    """Character cards say nothing of it, and their replies are long."""
    assert TINY(request(persona=NELL)) == ()
    assert len(TINY(request(persona=persona("medium")))) == 1


def test_earlier_replies_are_remembered() -> None:
    mine = persona(preferred=("coins",))
    turns = (Turn(Role.USER, "Hi"), Turn(Role.ASSISTANT, "Shiny coins!"), Turn(Role.USER, "More"))
    zeros = torch.zeros(vocabulary("bytes").size)
    assert not torch.equal(processor(request(persona=mine))(zeros, []), zeros)
    assert torch.equal(processor(replace(request(persona=mine), turns=turns))(zeros, []), zeros)


def test_a_card_with_endless_lists_is_cut() -> None:
    draw = Random(1)
    many = tuple(f"{draw.random():.9f}" for _ in range(20 * MAX_BANNED))
    made = processor(request(persona=persona(banned=many, preferred=many, catchphrases=many)))
    assert len(made._bans.phrases.folded) == MAX_BANNED


def test_the_local_engine_has_it_unless_it_is_switched_off(tmp_path: object) -> None:
    config = local_config(tmp_path)  # type: ignore[arg-type]
    asked = request("Hi!", seed=3, temperature=1.5, max_new_tokens=40)
    plain = serve(build(replace(config, lexicon=False)), asked)[0].text
    letters = tuple(letter for letter in plain if letter in punctuation)
    assert letters
    asked = replace(asked, persona=persona(banned=letters))
    assert serve(build(config), asked)[0].text != plain
    assert serve(build(replace(config, lexicon=False)), asked)[0].text == plain


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece", "byte"])
def test_an_emoji_of_which_all_are_banned_is_given_up(kind: str) -> None:
    begun = "😀".encode()[:3]
    banned = tuple((begun + bytes([last])).decode() for last in range(0x80, 0xC0))
    made = processor(request(persona=persona(emoji_rate=1.0, banned=banned)), kind)
    pieces = vocabulary(kind).pieces
    rest = begun
    said = []
    while rest:
        said.append(
            max(
                (token for token, piece in enumerate(pieces) if piece and rest.startswith(piece)),
                key=lambda token: len(pieces[token]),
            )
        )
        rest = rest[len(pieces[said[-1]]) :]
    logits = made(torch.zeros(vocabulary(kind).size), said)
    assert logits.isfinite().any()
    assert all(not logits[token].isfinite() for token in range(len(pieces)) if pieces[token] == b"\x80")


def test_a_reply_ends_where_everything_is_banned(monkeypatch: pytest.MonkeyPatch) -> None:
    made = processor(request(persona=persona(banned=["me"])))
    monkeypatch.setattr(made._bans, "restrain", lambda logits, _place, *, is_last: logits.fill_(-torch.inf))
    assert int(made(torch.zeros(vocabulary("bytes").size), []).argmax()) == END
