import pytest
import torch

from engine.encoders.types import ImageFeatures, SentenceFeatures
from engine.errors import ConfigurationError
from engine.fusion.kinds import KINDS
from engine.fusion.matching import INITIAL_BIAS, INITIAL_SCALE, mean_meaning
from tests.engine.fusion.tiny import an_image, tiny_fusion


def a_sentence(*, seed: int = 0, num_words: int = 4) -> SentenceFeatures:
    chance = torch.Generator().manual_seed(seed)
    pooled = torch.randn(16, generator=chance)
    return SentenceFeatures(torch.randn(num_words, 16, generator=chance), pooled / pooled.norm())


IMAGES = [an_image(seed=j) for j in range(3)]
TEXTS = [a_sentence(seed=j) for j in range(3)]


def test_embeddings_have_length_one() -> None:
    model = tiny_fusion(has_heads=True)
    for embeddings in (model.embed_images(IMAGES), model.embed_texts(TEXTS)):
        assert embeddings.shape == (3, 16)
        assert torch.allclose(embeddings.norm(dim=-1), torch.ones(3))


def test_without_a_fit_a_picture_is_its_class_names_and_a_text_itself() -> None:
    model = tiny_fusion(has_heads=True)
    (found,) = model.embed_images([ImageFeatures(torch.rand(6, 1280), torch.tensor([7, 9]), torch.tensor([1.0, 0.0]))])
    assert torch.allclose(found, torch.nn.functional.normalize(model.meanings[7], dim=-1), atol=1e-6)
    assert torch.allclose(model.embed_texts(TEXTS[:1])[0], TEXTS[0].pooled, atol=1e-6)


def test_weights_count_by_their_roots() -> None:
    meanings = torch.eye(2)[None]
    (vector,) = mean_meaning(meanings, torch.tensor([[0.8, 0.2]]))
    assert vector[1] / vector[0] == pytest.approx((0.2 / 0.8) ** 0.5)


def test_what_all_have_in_common_tells_nothing() -> None:
    """Moving every text by the centre changes no embedding."""
    model = tiny_fusion(has_heads=True)
    before = model.embed_texts(TEXTS)
    model.matching.text_centre.fill_(0.3)
    moved = [SentenceFeatures(text.tokens, text.pooled + 0.3) for text in TEXTS]
    assert torch.allclose(model.embed_texts(moved), before, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_scores_rank_as_the_embeddings_do(kind: str) -> None:
    model = tiny_fusion(kind=kind, has_heads=True)
    alike = (model.embed_images(IMAGES) * model.embed_texts(TEXTS)).sum(dim=-1)
    scores = model.match_scores(IMAGES, TEXTS)
    assert torch.allclose(scores, INITIAL_SCALE * alike + INITIAL_BIAS, atol=1e-4)


def test_trained_scores_come_from_the_fusion_too() -> None:
    model = tiny_fusion(has_heads=True)
    before = model.match_scores(IMAGES, TEXTS)
    torch.nn.init.normal_(model.matching.pair_score.weight)
    assert not torch.allclose(model.match_scores(IMAGES, TEXTS), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pairs_score_does_not_depend_on_the_others_in_the_batch(kind: str) -> None:
    model = tiny_fusion(kind=kind, has_heads=True)
    torch.nn.init.normal_(model.matching.pair_score.weight)
    texts = [a_sentence(seed=j, num_words=2 + 3 * j) for j in range(3)]
    together = model.match_scores(IMAGES, texts)
    for j in range(3):
        assert torch.allclose(model.match_scores(IMAGES[j : j + 1], texts[j : j + 1])[0], together[j], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_contrast_sees_each_alone(kind: str) -> None:
    """Pictures × texts: one text's change moves its own column and no other."""
    model = tiny_fusion(kind=kind, has_heads=True)
    before = model.contrast(IMAGES, TEXTS)
    after = model.contrast(IMAGES, [a_sentence(seed=50), *TEXTS[1:]])
    assert before.shape == (3, 3)
    assert not torch.allclose(before[:, 0], after[:, 0], atol=1e-4)
    assert torch.allclose(before[:, 1:], after[:, 1:], atol=1e-4)


def test_weights_without_heads_say_so() -> None:
    with pytest.raises(ConfigurationError, match="train them again"):
        tiny_fusion().embed_images(IMAGES)
    with pytest.raises(ConfigurationError, match="train them again"):
        tiny_fusion().guess(torch.zeros(1, 24), torch.zeros(5, 16))
