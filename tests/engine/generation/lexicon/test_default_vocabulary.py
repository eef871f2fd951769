"""The default model's own tokenizer: which of its tokens a ban forbids."""

import pytest
import torch

from engine.config import EngineConfig
from engine.decoder.checkpoint import open_checkpoint
from engine.decoder.language_model import load_tokenizer
from engine.generation.lexicon.bans import Bans
from engine.generation.lexicon.emoji import EmojiTokens
from engine.generation.lexicon.phrases import Place
from engine.generation.lexicon.vocabulary import Vocabulary
from engine.models.store import ModelStore

pytestmark = pytest.mark.weights
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vocabulary(models: ModelStore, cache_dir: object) -> Vocabulary:
    checkpoint = open_checkpoint(EngineConfig(cache_dir=cache_dir), models, None)  # type: ignore[arg-type]
    return Vocabulary(load_tokenizer(checkpoint.folder).backend_tokenizer, size=49152)


def test_a_ban_touches_the_word_alone(vocabulary: Vocabulary) -> None:
    ban = Bans(vocabulary, ["me", "I", "wrong"], device=CPU)
    touched = {vocabulary.texts[token] for token in ban.at(Place()).hardly.tolist()}
    assert touched == {"me", " me", "i", " i", "wrong", " wrong"}
    assert not len(ban.at(Place()).never)
    for word in (" meet", " some", " wrongly", " It", " home"):
        assert any(len(tokens) == 1 for tokens in vocabulary.spellings(word.strip())), word
        assert word.lower() not in touched


def test_emoji_are_known_among_its_bytes(vocabulary: Vocabulary) -> None:
    tokens = EmojiTokens(vocabulary, device=CPU)
    forbidden = set(tokens.forbidden(b"").tolist())
    first = {text: next(vocabulary.spellings(text))[0] for text in ("😄", "喵", "é", "…", "—")}
    assert first["😄"] in forbidden
    assert not forbidden & {token for text, token in first.items() if text != "😄"}
    assert len(tokens.starts)
