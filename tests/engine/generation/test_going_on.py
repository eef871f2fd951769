"""A reply that has begun goes on as if it had never been cut, on each runtime, with and without prefix and pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.decoder.language_model import LanguageModel
from engine.errors import PromptTooLong
from engine.generation.loop import GenerationLoop
from engine.generation.processors import LogitsProcessor
from engine.runtime.paged import PagedRuntime
from engine.runtime.plain import PlainRuntime
from engine.runtime.types import Runtime
from engine.types import FinishReason, GenerationRequest, Role, Turn
from tests.engine.decoder.test_seen import picture
from tests.engine.generation.loops import MODEL, RED, Caller, FakeFuser, OneRuntime, a_loop, serve
from tests.engine.generation.requests import request, talk
from tests.engine.seeing.tiny import tiny_llava

NUM_TOKENS = 24
END = max(MODEL.end_token_ids)
SPACE = MODEL.prompts.tokenise(" ")[0]
READABLE = [*MODEL.prompts.tokenise(" \n"), *MODEL.prompts.tokenise("abcdefghijklmnopqrstuvwxyz.,!?ABCDEFGHIJ'")]


def readable(asked: GenerationRequest) -> Sequence[LogitsProcessor]:
    """Random weights say random bytes; here letters and white space, so that text becomes the same tokens again."""
    mask = torch.full((MODEL.vocab_size,), -torch.inf)
    mask[READABLE] = 0.0
    mask[SPACE] = 1.5

    def process(logits: Tensor, new_tokens: Sequence[int]) -> Tensor:
        return logits + mask

    return [process]


def asked_for(*texts: str, is_shown: bool = False, **sampling: object) -> GenerationRequest:
    settings = {"temperature": 0.0, "repetition_penalty": 1.3, "max_new_tokens": NUM_TOKENS, "seed": None} | sampling
    asked = request(*texts, **settings)
    return replace(asked, turns=(*asked.turns[:-1], replace(asked.turns[-1], images=(RED,)))) if is_shown else asked


def goes_on(loop: GenerationLoop, asked: GenerationRequest) -> Caller:
    """Cut at every place, it comes to the whole; the last that went on."""
    (whole,) = serve(loop, asked)
    assert len(whole.text) == NUM_TOKENS
    spaces = [size for size in range(2, NUM_TOKENS) if whole.text[size - 1].isspace()]
    starts = [whole.text[:size] for size in sorted({1, 2, 3, 5, 8, 13, NUM_TOKENS - 1, *spaces[:2]})]
    assert spaces, "what is cut right behind a space is to be tried too"
    everybody = serve(
        loop,
        *(
            replace(asked, reply_start=start, sampling=replace(asked.sampling, max_new_tokens=NUM_TOKENS - len(start)))
            for start in starts
        ),
    )
    for start, caller in zip(starts, everybody, strict=True):
        space = len(start) - len(start.rstrip())
        assert start + caller.text == whole.text[: NUM_TOKENS - space], repr(start)
    return everybody[-1]


@pytest.mark.parametrize("is_shown", [False, True])
@pytest.mark.parametrize("seed", [None, 1])
def test_it_goes_on_as_if_it_had_never_been_cut(runtime: Runtime, is_shown: bool, seed: int | None) -> None:
    asked = asked_for("Hi!", "Ahoy. Who is it?", "Guess!", is_shown=is_shown, seed=seed)
    last = goes_on(a_loop(runtime, FakeFuser(), make_processors=readable), asked)
    assert last.last.stats is not None
    assert last.last.stats.has_fused_prefix == is_shown
    if runtime.is_paged and seed is None:
        assert last.num_cached_tokens >= 32


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_llava(Path(tmp_path_factory.mktemp("llava")))


@pytest.mark.parametrize("make", [PlainRuntime, PagedRuntime])
def test_a_vision_language_model_goes_on_too(llava: LanguageModel, make: type[PlainRuntime | PagedRuntime]) -> None:
    asked = replace(asked_for(), turns=(Turn(Role.USER, "What is it?", (picture("red"),)),))
    goes_on(GenerationLoop(llava, make(llava, num_blocks=128), make_processors=readable), asked)


def test_who_has_nothing_to_add_adds_nothing(runtime: Runtime) -> None:
    def end(spans: object, logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[:, END] = 1e4
        return logits

    (caller,) = serve(a_loop(OneRuntime(runtime, after=end)), replace(asked_for("Hi!"), reply_start="That is all."))
    assert caller.text == ""
    assert caller.last.finish_reason is FinishReason.STOP


def test_a_stop_string_may_have_begun_before() -> None:
    def say(spans: object, logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[:, MODEL.prompts.tokenise("r")[0]] = 1e4
        return logits

    asked = replace(asked_for("Hi!", stop=("\nUser",)), reply_start="Ahoy.\nUse")
    (caller,) = serve(a_loop(OneRuntime(PagedRuntime(MODEL, num_blocks=64), after=say)), asked)
    assert caller.text == ""
    assert caller.last.finish_reason is FinishReason.STOP
    assert caller.sequence.num_new_tokens == 1


def test_old_turns_make_room_for_it() -> None:
    asked = replace(request(max_new_tokens=8), turns=talk(*["word " * 10] * 7))
    loop = a_loop(PagedRuntime(MODEL, num_blocks=64))
    without, behind = serve(loop, asked, replace(asked, reply_start="and so on, " * 15))
    assert without.last.stats is not None
    assert behind.last.stats is not None
    assert behind.last.stats.num_dropped_turns > without.last.stats.num_dropped_turns
    (refused,) = serve(loop, replace(asked, reply_start="and so on, " * 99))
    assert isinstance(refused.error, PromptTooLong)
