"""What texts cost: by the tokenizer itself, by an estimate, and by one that learns."""

import asyncio
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decoder.prompt import PromptWriter
from engine.generation.prompts import PromptMaker
from engine.measure import MAX_REMEMBERED_CHARACTERS, TokenizerMeasure
from engine.service import EngineService
from engine.tokens import CalibratedTokens, EstimatedTokens
from engine.types import ContextSize, Role, Turn
from tests.engine.backends.subjects import local_config
from tests.engine.generation.loops import MODEL, FakeFuser
from tests.engine.tiny import CHATML, STRICT, tiny_tokenizer

WRITER = PromptWriter(tiny_tokenizer(), name="tiny")
SIZE = ContextSize(512, 7, 0)
MEASURE = TokenizerMeasure(WRITER.tokenizer_json(), SIZE)


@given(st.text(max_size=50))
def test_it_counts_as_the_writer_tokenises(text: str) -> None:
    assert MEASURE.count_tokens(text) == len(WRITER.tokenise(text))


def test_a_long_text_is_counted_whole_and_not_kept() -> None:
    text = "a" * (MAX_REMEMBERED_CHARACTERS + 1)
    before = MEASURE._count_short.cache_info().currsize
    assert MEASURE.count_tokens(text) == len(text)
    assert MEASURE._count_short.cache_info().currsize == before


def test_half_a_character_counts_as_what_stands_for_it() -> None:
    assert MEASURE.count_tokens("a\ud83d") == 2


def test_it_crosses_to_other_processes() -> None:
    there = pickle.loads(pickle.dumps(MEASURE))
    assert (there.count_tokens("Ahoy!"), there.context()) == (MEASURE.count_tokens("Ahoy!"), SIZE)


@pytest.mark.parametrize("template", [CHATML, STRICT])
@pytest.mark.parametrize("num_turns", [1, 5, 9])
def test_turns_cost_what_is_said_of_them(template: str, num_turns: int) -> None:
    writer = PromptWriter(tiny_tokenizer(template), name="tiny")
    talk = [Turn((Role.USER, Role.ASSISTANT)[number % 2], "word") for number in range(num_turns)]
    counted = sum(len(writer.tokenise(turn.text)) + writer.num_tokens_per_turn() for turn in talk)
    assert 0 <= counted + len("<assistant\n") - writer.write("", talk).num_tokens < 6 * num_turns


def test_prefixes_count_as_part_of_their_turn() -> None:
    makers = [PromptMaker(MODEL, fuser, max_tokens=99, sees_ahead=True) for fuser in (None, FakeFuser())]
    without, fused = (maker.measure().context() for maker in makers)
    assert without == ContextSize(99, MODEL.prompts.num_tokens_per_turn(), 0)
    assert fused.per_turn == without.per_turn + FakeFuser.num_prefix_tokens


async def test_an_engine_knows_once_it_has_started(tmp_path: Path) -> None:
    engine = EngineService(local_config(tmp_path))
    assert engine.context() == ContextSize()
    assert engine.count_tokens("Ahoy there, matey!") == EstimatedTokens().count_tokens("Ahoy there, matey!")
    await engine.start()
    try:
        assert engine.context().max_tokens == 512
        # From other threads, while the engine's own uses its tokenizer.
        texts = [f"{number} ahoy" * 20 for number in range(64)]
        counted = await asyncio.gather(*(asyncio.to_thread(engine.count_tokens, text) for text in texts))
        assert counted == [len(text) for text in texts]
    finally:
        await engine.aclose()


LATIN, HAN = "It is a fine day. " * 40, "今天天气很好。" * 40


def taught(text: str, *, tokens_per_sign: float, times: int = 5) -> CalibratedTokens:
    measure = CalibratedTokens()
    for _ in range(times):
        num_tokens = 3 * measure.size.per_turn + round(tokens_per_sign * len(text))
        measure.note(text, num_turns=3, num_tokens=num_tokens)
    return measure


@pytest.mark.parametrize("text", [LATIN, HAN])
@pytest.mark.parametrize("tokens_per_sign", [0.15, 0.25, 0.5, 1.0, 1.4])
def test_an_estimate_learns_what_prompts_have_cost(text: str, tokens_per_sign: float) -> None:
    measure, real = taught(text, tokens_per_sign=tokens_per_sign, times=40), tokens_per_sign * len(text)
    if tokens_per_sign / (1 / 3 if text is LATIN else 1) > 0.2:
        assert real <= measure.count_tokens(text) <= 1.1 * real
    assert measure.count_tokens(text) >= real


def test_what_is_learnt_of_one_script_is_not_believed_of_another() -> None:
    measure = taught(LATIN, tokens_per_sign=0.2, times=40)
    assert measure.count_tokens(LATIN) < CalibratedTokens().count_tokens(LATIN)
    assert measure.count_tokens(HAN) == CalibratedTokens().count_tokens(HAN)


def test_a_few_signs_in_a_text_teach_nothing_about_their_kind() -> None:
    measure = taught(f"{LATIN}好", tokens_per_sign=0.5)
    assert measure.count_tokens(HAN) == CalibratedTokens().count_tokens(HAN)
    assert measure.count_tokens(LATIN) > CalibratedTokens().count_tokens(LATIN)


def test_a_template_that_takes_no_conversation_is_no_reason_not_to_start() -> None:
    template = "{% if messages | length > 2 %}{{ raise_exception('one at a time') }}{% endif %}u"
    assert PromptWriter(tiny_tokenizer(template), name="odd").num_tokens_per_turn() == ContextSize().per_turn


def test_too_low_an_estimate_is_mended_sooner_than_one_too_high() -> None:
    fresh = CalibratedTokens().count_tokens(LATIN)
    up, down = (taught(LATIN, tokens_per_sign=share, times=1) for share in (0.5, 0.2))
    assert up.count_tokens(LATIN) > 0.8 * 0.5 * len(LATIN)
    assert down.count_tokens(LATIN) > 0.8 * fresh


@pytest.mark.parametrize("num_tokens", [-5, 0, 3, 10**9])
def test_nonsense_teaches_little(num_tokens: int) -> None:
    measure, fresh = CalibratedTokens(), CalibratedTokens().count_tokens(LATIN)
    for _ in range(20):
        measure.note("Hi", num_turns=1, num_tokens=num_tokens)
    assert measure.count_tokens(LATIN) == fresh
    for _ in range(20):
        measure.note(LATIN, num_turns=1, num_tokens=num_tokens)
    assert fresh / 6 < measure.count_tokens(LATIN) < fresh * 5
