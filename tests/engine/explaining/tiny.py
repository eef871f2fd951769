"""A whole tiny engine of which replies can be explained: tiny models, and an image encoder that sees colours."""

import hashlib
import io
from dataclasses import replace

import PIL.Image
import torch
from torch import nn

from engine.encoders.image import ImageEncoder, read_picture
from engine.encoders.types import ImageFeatures
from engine.fusion.pipeline import FusionPipeline
from engine.persona import Persona
from engine.types import GenerationRequest, Image, Role, SamplingSettings, Turn
from tests.engine.encoders.tiny import tiny_text_encoder
from tests.engine.fusion.tiny import CONFIG, NAMES, tiny_fusion

PERSONA = Persona(id="ada", name="Ada", summary="kind", traits=("kind", "a cat"), greetings=("hi",))
NUM_FACETS = 4


class ColourEncoder(ImageEncoder):
    """A patch is the mean colour of its place; the concepts are always the same, weighted by the whole colour."""

    def __init__(self) -> None:
        self.backbone = nn.Linear(1, 1)
        self._patch = torch.randn(3, 1280, generator=torch.Generator().manual_seed(1))
        self._concept = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))

    def encode(self, pictures: list[bytes]) -> list[ImageFeatures]:
        return self.encode_pixels(torch.stack([read_picture(data) for data in pictures])) if pictures else []

    def encode_pixels(self, pixels: torch.Tensor) -> list[ImageFeatures]:
        patches = nn.functional.adaptive_avg_pool2d(pixels, 5).flatten(2).transpose(1, 2)
        weights = (patches.mean(dim=1) @ self._concept).softmax(dim=-1)
        ids = torch.tensor([7, 3, 11, 5])
        return [ImageFeatures(one @ self._patch, ids, weight) for one, weight in zip(patches, weights, strict=True)]


def a_pipeline(*, is_trained: bool = True, **changes: object) -> FusionPipeline:
    """Its prefix is loud, so that what changes in it can be told from rounding."""
    return FusionPipeline(
        tiny_fusion(replace(CONFIG, **({"embedding_scale": 2.0} | changes)), is_trained=is_trained),
        image=ColourEncoder(),
        text=tiny_text_encoder(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        class_names=NAMES,
    )


def two_coloured(left: str, right: str = "white") -> bytes:
    """A picture with something in it: a half of it in one colour, a half in another."""
    halves = PIL.Image.new("RGB", (60, 40), right)
    halves.paste(left, (0, 0, 30, 40))
    file = io.BytesIO()
    halves.save(file, "PNG")
    return file.getvalue()


def image_of(colour: str) -> Image:
    data = two_coloured(colour)
    return Image(hashlib.sha256(data).hexdigest(), data)


def a_request(*turns: Turn, persona: Persona = PERSONA, max_new_tokens: int = 8) -> GenerationRequest:
    return GenerationRequest(persona, "You are Ada.", turns, SamplingSettings(max_new_tokens=max_new_tokens, seed=1))


def said(text: str, *colours: str) -> Turn:
    return Turn(Role.USER, text, tuple(image_of(colour) for colour in colours))
