from pathlib import Path

import pytest
import torch

from engine.encoders.text import MAX_TOKENS, TextEncoder
from engine.errors import WeightsError
from tests.engine.encoders.tiny import save_text_encoder, tiny_text_encoder


def test_a_text_has_a_token_for_each_word() -> None:
    encoder = tiny_text_encoder()
    (features,) = encoder.encode(["a photo of a dog"])
    assert features.tokens.shape == (5, encoder.width)
    assert features.words == ("a", "photo", "of", "a", "dog")


def test_an_empty_text_has_no_tokens() -> None:
    encoder = tiny_text_encoder()
    empty, full = encoder.encode(["", "a dog"])
    assert empty.tokens.shape == (0, encoder.width)
    assert full.tokens.shape == (2, encoder.width)


def test_padding_changes_nothing() -> None:
    encoder = tiny_text_encoder()
    (alone,) = encoder.encode(["a dog"])
    together, _ = encoder.encode(["a dog", "i am kind i am kind i am kind"])
    assert torch.allclose(alone.tokens, together.tokens, atol=1e-5)
    assert torch.allclose(encoder.pool(["a dog"]), encoder.pool(["a dog", "i am kind i am kind"])[:1], atol=1e-5)


def test_a_long_text_is_cut() -> None:
    (features,) = tiny_text_encoder().encode(["dog " * 200])
    assert len(features.tokens) == MAX_TOKENS - 2


def test_pooled_vectors_have_length_one() -> None:
    encoder = tiny_text_encoder()
    vectors = encoder.pool(["a dog"] * 70)  # more than one batch
    assert vectors.shape == (70, encoder.width)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(70), atol=1e-5)
    assert encoder.pool([]).shape == (0, encoder.width)


def test_an_encoder_is_loaded_from_its_folder(tmp_path: Path) -> None:
    loaded = TextEncoder.load(save_text_encoder(tmp_path))
    assert torch.allclose(loaded.pool(["my dog"]), tiny_text_encoder().pool(["my dog"]), atol=1e-6)


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    save_text_encoder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match="commedia models fetch"):
        TextEncoder.load(tmp_path)
