import hashlib

import pytest
import torch

from engine.encoders.image import ImageEncoder
from engine.encoders.types import ImageFeatures
from engine.errors import RequestError
from engine.fusion.model import FusionModel
from engine.fusion.pipeline import FusionPipeline
from engine.persona import Persona
from engine.types import Image
from tests.engine.encoders.tiny import picture, tiny_text_encoder
from tests.engine.fusion.tiny import CONFIG, an_image, tiny_fusion


class CountingImageEncoder(ImageEncoder):
    """Features by the file's length; counts what it encodes. Fails on a file that starts with `bad`."""

    def __init__(self) -> None:
        self.num_encoded = 0

    def encode(self, pictures: list[bytes]) -> list[ImageFeatures]:
        if any(data.startswith(b"bad") for data in pictures):
            raise RequestError("The picture cannot be decoded; send it again as a JPEG or PNG file.")
        self.num_encoded += len(pictures)
        return [an_image(seed=len(data)) for data in pictures]


def a_pipeline(model: FusionModel, *, dtype: torch.dtype = torch.float32) -> FusionPipeline:
    return FusionPipeline(
        model, image=CountingImageEncoder(), text=tiny_text_encoder(), device=torch.device("cpu"), dtype=dtype
    )


def image_of(data: bytes) -> Image:
    return Image(hashlib.sha256(data).hexdigest(), data)


PERSONA = Persona(id="ada", name="Ada", summary="kind", greetings=("hi",))
DOG, CAT = image_of(picture("red")), image_of(picture("blue", size=(300, 200)))


def test_a_turn_with_a_picture_gets_a_prefix_with_its_attention() -> None:
    context = a_pipeline(tiny_fusion(), dtype=torch.bfloat16).fuse(PERSONA, "a dog", (DOG,))
    assert context is not None
    assert context.prefix.shape == (3, 32)
    assert context.prefix.dtype == torch.bfloat16
    maps = context.attention
    assert (maps.image.shape[1], maps.text.shape[1], maps.persona.shape[1]) == (16, 2, 2)
    total = maps.image.sum(dim=1) + maps.text.sum(dim=1) + maps.persona.sum(dim=1)
    assert torch.allclose(total, torch.ones(3), atol=1e-5)


def test_an_untrained_fusion_gives_no_prefix() -> None:
    assert a_pipeline(tiny_fusion(is_trained=False)).fuse(PERSONA, "a dog", (DOG,)) is None


def test_the_policy_decides_about_turns_without_pictures() -> None:
    assert a_pipeline(tiny_fusion(policy="pictures")).fuse(PERSONA, "a dog", ()) is None
    context = a_pipeline(tiny_fusion(policy="always")).fuse(PERSONA, "a dog", ())
    assert context is not None
    assert context.attention.image.shape == (3, 0)


def test_a_picture_without_words_is_fused() -> None:
    context = a_pipeline(tiny_fusion()).fuse(PERSONA, "", (DOG,))
    assert context is not None
    assert context.attention.text.shape == (3, 0)


def test_the_same_turn_is_fused_once_and_a_picture_encoded_once() -> None:
    pipeline = a_pipeline(tiny_fusion())
    first = pipeline.fuse(PERSONA, "a dog", (DOG,))
    assert pipeline.fuse(PERSONA, "a dog", (DOG,)) is first
    assert pipeline.fuse(PERSONA, "a cat", (DOG, CAT, DOG)) is not first
    assert pipeline._image.num_encoded == 2


@pytest.mark.parametrize("what", ["persona", "text", "images"])
def test_whatever_differs_is_fused_anew(what: str) -> None:
    """A prefix of one user must never be another's."""
    pipeline = a_pipeline(tiny_fusion())
    asked = {"persona": PERSONA, "text": "a dog", "images": (DOG,)}
    changed = {"persona": PERSONA.model_copy(update={"summary": "a cat"}), "text": "a cat", "images": (CAT,)}
    first, second = pipeline.fuse(**asked), pipeline.fuse(**(asked | {what: changed[what]}))
    assert not torch.allclose(first.prefix, second.prefix, atol=1e-5)


def test_pictures_beyond_the_limit_are_left_out() -> None:
    pipeline = a_pipeline(tiny_fusion(max_images=2))
    context = pipeline.fuse(PERSONA, "a dog", (DOG, CAT, DOG, CAT))
    assert context.attention.image.shape == (3, 2 * 16)


def test_a_broken_picture_spoils_nothing_for_later_ones() -> None:
    pipeline = a_pipeline(tiny_fusion())
    with pytest.raises(RequestError):
        pipeline.fuse(PERSONA, "a dog", (image_of(b"bad"),))
    assert pipeline.fuse(PERSONA, "a dog", (DOG,)) is not None


def test_the_prefix_equals_the_models_own() -> None:
    model = tiny_fusion()
    pipeline = a_pipeline(model)
    once, again = pipeline.fuse(PERSONA, "a dog", (DOG,)), a_pipeline(model).fuse(PERSONA, "a dog", (DOG,))
    assert torch.equal(once.prefix, again.prefix)
    assert pipeline.num_prefix_tokens == CONFIG.num_prefix_tokens
