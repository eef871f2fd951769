"""An engine that sees colours: what a picture shows is its mean colour, and words mean the colours that they name."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image as PillowImage

from engine.errors import EngineError
from engine.types import (
    Embedding,
    Explanation,
    FacetShare,
    GenerationRequest,
    Image,
    RegionShares,
    Sight,
    StreamShares,
    TokenShare,
    Translation,
)
from tests.fakes.engine import ScriptedEngine

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


def a_picture(colour: str, *, size: tuple[int, int] = (40, 30)) -> bytes:
    """A PNG of one colour."""
    out = io.BytesIO()
    PillowImage.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def colour_of(data: bytes) -> str:
    """The name of the colour that a picture has."""
    with PillowImage.open(io.BytesIO(data)) as picture:
        pixel = picture.convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], pixel, strict=True)))


@dataclass
class ColourEngine(ScriptedEngine):
    """A `SeeingEngine` that also answers. `failure` makes every look fail, `poisonous` those at that colour;
    `looked_at` are the pictures embedded."""

    weights: str = "colours-1"
    failure: EngineError | None = None
    poisonous: str | None = None
    looked_at: list[str] = field(default_factory=list)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    translated: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    explained: list[tuple[GenerationRequest, str]] = field(default_factory=list)
    speaks: tuple[str, ...] = ("English", "German")

    async def describe(self, image: Image, *, question: str | None = None, language: str | None = None) -> Sight:
        self._fail()
        colour = colour_of(image.data)
        self.asked.append((colour, question, language))
        return Sight(f"It is {colour}.", 0.9, is_unsure=False)

    async def space(self) -> str:
        self._fail()
        return self.weights

    async def embed_images(self, images: Sequence[Image]) -> tuple[Embedding, ...]:
        self._fail()
        self._choke(images)
        self.looked_at += [colour_of(image.data) for image in images]
        return tuple(self._embedding(colour_of(image.data)) for image in images)

    async def embed_text(self, text: str) -> Embedding:
        self._fail()
        return self._embedding(text)

    async def match(self, text: str, images: Sequence[Image]) -> tuple[float, ...]:
        self._fail()
        self._choke(images)
        return tuple(0.95 if colour_of(image.data) in text else 0.05 for image in images)

    async def translate(self, text: str, *, language: str, images: tuple[Image, ...] = ()) -> Translation:
        self._fail()
        self.translated.append((text, language, tuple(colour_of(image.data) for image in images)))
        return Translation(f"{language}: {text}", is_unsure=language not in self.speaks)

    async def explain(self, request: GenerationRequest, reply: str) -> Explanation:
        self._fail()
        self.explained.append((request, reply))
        num_pictures = len(next((turn.images for turn in reversed(request.turns) if turn.images), ()))
        return Explanation(
            regions=tuple(
                RegionShares(number, 2, 2, tuple([0.25 / num_pictures] * 4)) for number in range(num_pictures)
            ),
            concepts=(TokenShare("colour", 1.0),) if num_pictures else (),
            words=(TokenShare("what", 1.0),),
            facets=(
                FacetShare("traits", "I am bold.", 0.4),
                FacetShare("lore", "The butler did it.", 0.3),
                FacetShare("lore", "The cook helped.", 0.2),
                FacetShare("pronouns", "My pronouns are she/her.", 0.1),
            ),
            stream_shares=StreamShares(0.5, 0.3, 0.2),
            method="By the rules of the test.",
            has_prefix=bool(num_pictures),
        )

    def _embedding(self, text: str) -> Embedding:
        values = [1.0 if name in text else 0.0 for name in COLOURS]
        return Embedding(self.weights, tuple(values))

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _choke(self, images: Sequence[Image]) -> None:
        if self.poisonous in [colour_of(image.data) for image in images]:
            raise EngineError("the engine failed on this")
