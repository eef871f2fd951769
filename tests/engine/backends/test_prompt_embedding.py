"""A conversation as embeddings: the same that the decoder itself would have read, without the decoder."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.backends import prompt_embedding
from engine.backends.prompt_embedding import EmbeddedPrompt, EmbeddingTable, PromptEmbedder, strongest_biases
from engine.config import EngineConfig
from engine.decoder.checkpoint import open_checkpoint
from engine.decoder.language_model import LanguageModel
from engine.errors import ConfigurationError, PromptTooLong, WeightsError
from engine.fusion.types import AttentionMaps, FusedContext
from engine.fusion.weights import save_fusion
from engine.models.store import ModelStore
from engine.persona import Persona
from engine.types import GenerationRequest, Image, Insertion
from tests.engine.backends.test_chat_request import picture
from tests.engine.fusion.tiny import NAMES, tiny_fusion
from tests.engine.generation.requests import request
from tests.engine.tiny import save_tiny, tiny_language_model

NUM_PREFIX_TOKENS = 3
EMPTY = AttentionMaps(torch.zeros(0), torch.zeros(0), torch.zeros(0))


class PictureFuser:
    """A prefix for turns with pictures, made of the number of their words."""

    num_prefix_tokens = NUM_PREFIX_TOKENS

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        if not images:
            return None
        prefixes = tuple(torch.full((NUM_PREFIX_TOKENS, 32), float(len(text) + index)) for index in range(2))
        return FusedContext(prefixes, EMPTY, (0.25, 0.75), tuple(torch.full((32,), 0.5 + index) for index in range(2)))


def with_picture(*texts: str, at: int) -> GenerationRequest:
    asked = request(*texts)
    turns = [replace(turn, images=(picture(),)) if index == at else turn for index, turn in enumerate(asked.turns)]
    return replace(asked, turns=tuple(turns))


def load_table(config: EngineConfig) -> EmbeddingTable:
    """The table as it is read from disk."""
    return prompt_embedding._load_table(config, open_checkpoint(config, ModelStore(config.cache_dir)))


def tiny_config(folder: Path) -> EngineConfig:
    return EngineConfig(cache_dir=folder, decoder=str(save_tiny(folder / "tiny")))


@pytest.fixture
def table(tmp_path: Path) -> EmbeddingTable:
    return load_table(tiny_config(tmp_path))


@pytest.fixture
def embedder(table: EmbeddingTable) -> PromptEmbedder:
    return PromptEmbedder(table, PictureFuser())


def unpacked(prompt: EmbeddedPrompt | str | None) -> Tensor:
    assert prompt is not None
    data = prompt if isinstance(prompt, str) else prompt.data
    tensor: Tensor = torch.load(io.BytesIO(base64.b64decode(data, validate=True)), weights_only=True)
    return tensor


def as_the_decoder_reads(model: LanguageModel, asked: GenerationRequest, *, place: int) -> Tensor:
    turn = asked.turns[place]
    context = PictureFuser().fuse(asked.persona, turn.text, turn.images)
    assert context is not None
    pieces = model.prompts.write(
        asked.system_prompt, asked.turns, places={place}, reply_start=asked.reply_start, insertions=asked.insertions
    )
    return torch.cat([model.embed(pieces.pieces[0]), context.prefixes[1], model.embed(pieces.pieces[1])])


@pytest.mark.parametrize("insertions", [(), (Insertion("Psst."), Insertion("Hush.", 2))])
@pytest.mark.parametrize("start", ["", "Well, I"])
@pytest.mark.parametrize("place", [0, 2])
def test_it_is_what_the_decoder_would_read(
    embedder: PromptEmbedder, place: int, start: str, insertions: tuple[Insertion, ...]
) -> None:
    asked = with_picture("What is this?", "A cat.", "Are you sure?", at=place)
    asked = replace(asked, reply_start=start, insertions=insertions)
    expected = as_the_decoder_reads(tiny_language_model(), asked, place=place)
    prompt = embedder.embed(asked, max_tokens=None)
    assert prompt is not None
    assert torch.equal(unpacked(prompt), expected)
    assert prompt.num_tokens == len(expected)
    assert prompt.end_token_ids == (2,)


def test_a_conversation_without_a_prefix_needs_none_of_it(embedder: PromptEmbedder) -> None:
    assert embedder.embed(request("Hi!"), max_tokens=None) is None


def test_the_turn_that_is_answered_is_steered(embedder: PromptEmbedder, table: EmbeddingTable) -> None:
    now = embedder.embed(with_picture("What is this?", at=0), max_tokens=None)
    earlier = embedder.embed(with_picture("What is this?", "A cat.", "Sure?", at=0), max_tokens=None)
    assert now is not None
    assert earlier is not None
    assert earlier.logit_bias == {}
    # That of the prefix that counts most.
    exact = table.head @ torch.full((32,), 1.5)
    assert now.logit_bias == strongest_biases(exact)
    assert now.logit_bias[7] == pytest.approx(float(exact[7] - exact.median()), abs=1e-3)


def test_the_strongest_biases_are_kept() -> None:
    biases = torch.tensor([1.0, 1.0, 4.0, 1.0, -3.0, 1.5, 1.0])
    assert strongest_biases(biases, num_tokens=2) == {2: 3.0, 4: -4.0}
    assert strongest_biases(biases) == {2: 3.0, 4: -4.0, 5: 0.5}


def test_old_turns_go_where_the_context_is_too_short(embedder: PromptEmbedder) -> None:
    asked = with_picture("one", "two", "three", "four", "five", at=4)
    whole = embedder.embed(asked, max_tokens=None)
    assert whole is not None
    short = embedder.embed(asked, max_tokens=whole.num_tokens - 1)
    assert short is not None
    assert (whole.num_dropped_turns, short.num_dropped_turns) == (0, 2)
    begun = embedder.embed(replace(asked, reply_start="Well"), max_tokens=whole.num_tokens)
    assert begun is not None
    assert begun.num_dropped_turns == 2
    assert short.num_tokens < whole.num_tokens
    more = embedder.embed(asked, max_tokens=None, num_dropped_turns=4)
    assert more is not None
    assert more.num_dropped_turns == 4
    with pytest.raises(PromptTooLong):
        embedder.embed(asked, max_tokens=5)


def test_plain_text_is_embedded_too(embedder: PromptEmbedder) -> None:
    model = tiny_language_model()
    assert torch.equal(unpacked(embedder.embed_text("Hi!")), model.embed(model.prompts.tokenise("Hi!")))


def test_a_model_whose_table_has_another_name_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    save_file({"something.else": torch.zeros(4, 4)}, tmp_path / "tiny" / "model.safetensors")
    with pytest.raises(WeightsError, match='fusion = "none"'):
        load_table(config)


def test_a_decoder_without_trained_weights_needs_no_embeddings(tmp_path: Path) -> None:
    assert prompt_embedding.load_embedder(tiny_config(tmp_path)) is None


def test_fusion_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    save_fusion(tiny_fusion(), NAMES, tmp_path / "fusion")
    with pytest.raises(ConfigurationError, match="trained for tiny"):
        prompt_embedding.load_embedder(replace(tiny_config(tmp_path), fusion_weights=tmp_path / "fusion"))
