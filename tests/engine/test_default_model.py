"""The real default decoder: what conversion must have kept, and a reply through the whole service."""

import asyncio

import pytest

from engine.config import EngineConfig
from engine.decoder.language_model import LanguageModel
from engine.models.store import ModelStore
from engine.service import EngineService
from engine.types import FinishReason, GenerationRequest, ReplyChunk, Role, SamplingSettings, Turn
from tests.engine.generation.requests import NELL

pytestmark = pytest.mark.weights

SYSTEM = "You are Nell, the captain of a pirate ship. You love the sea and you say 'Arr'."


@pytest.fixture(scope="module")
def config(models: ModelStore, cache_dir: object) -> EngineConfig:
    return EngineConfig(cache_dir=cache_dir, dtype="float32", fusion="none")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def decoder(config: EngineConfig, models: ModelStore) -> LanguageModel:
    return LanguageModel.load(config, models=models)


def test_conversion_kept_the_model_as_its_authors_made_it(decoder: LanguageModel) -> None:
    assert (decoder.hidden_size, decoder.vocab_size, decoder.max_context_tokens) == (576, 49152, 4096)
    tokens = decoder.tokenizer.convert_ids_to_tokens(decoder.prompts.tokenise("It is 1984.<|im_end|>"))
    assert tokens == ["It", "Ġis", "Ġ", "1", "9", "8", "4", ".", "<|im_end|>"]
    assert decoder.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert decoder.end_token_ids == {0, 2}
    assert decoder.prompts.render("Be kind.", [Turn(Role.USER, "Hi")]) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_knows_what_it_was_taught(decoder: LanguageModel) -> None:
    prompt = decoder.encode(decoder.prompts.write("", [Turn(Role.USER, "What is the capital of France?")]))
    state = decoder.new_state()
    logits = decoder.prefill(prompt, state)
    ids = []
    for _ in range(8):
        ids.append(int(logits.argmax()))
        logits = decoder.decode(ids[-1], state)
    assert "Paris" in decoder.tokenizer.decode(ids)


async def test_a_seeded_reply_through_the_service_repeats(config: EngineConfig) -> None:
    asked = GenerationRequest(
        NELL, SYSTEM, (Turn(Role.USER, "Who are you?"),), SamplingSettings(max_new_tokens=12, seed=11)
    )

    async def reply() -> list[ReplyChunk]:
        return [chunk async for chunk in service.generate(asked)]

    service = EngineService(config)
    await service.start()
    try:
        one, again = await asyncio.gather(reply(), reply())
    finally:
        await service.aclose()
    text = "".join(chunk.text for chunk in one)
    assert text == "".join(chunk.text for chunk in again)
    assert len(text.split()) >= 3
    assert one[-1].finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert one[-1].stats is not None
    assert one[-1].stats.num_prompt_tokens > 30
