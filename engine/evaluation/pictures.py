"""A picture set as measurements take it: pictures with features and captions, and a character that is shown one.

Shapes: see `engine.encoders.types`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.encoders.types import ImageFeatures
from engine.evaluation.sets import draw
from engine.training.characters import characters, describe
from engine.training.samples import TrainingSample
from engine.training.workshop import Advance, Workshop
from engine.types import Role, Turn

ALL = 10**9
QUESTION = "What do you see?"


@dataclass(frozen=True, slots=True)
class SeenPicture:
    """One picture of a set: its features and its captions."""

    name: str
    features: ImageFeatures
    captions: tuple[str, ...]


def open_set(
    workshop: Workshop, folder: Path, name: str, *, limit: int | None, seed: int, advance: Advance
) -> tuple[list[SeenPicture], list[str]]:
    """The pictures of a set, and notes about those that cannot be read."""
    pictures, features = workshop.picture_set(folder, name, advance, max_per_caption=ALL)
    seen = [
        SeenPicture(picture.image, features.row(row), tuple(caption for caption in picture.captions if caption))
        for row, picture in enumerate(pictures)
    ]
    notes = []
    if features.skipped:
        few = ", ".join(features.skipped[:3])
        notes.append(f"{name}: {len(features.skipped)} pictures cannot be read and are left out ({few})")
    return draw([one for one in seen if one.captions], limit=limit, seed=seed), notes


def in_character(picture: ImageFeatures, caption: str) -> TrainingSample:
    """A character is asked what it sees, and answers with the caption."""
    persona = characters()[1].persona
    facets = tuple(facet.text for facet in persona.facets())
    return TrainingSample("scenes", describe(persona), facets, (Turn(Role.USER, QUESTION),), (picture,), caption)


def neighbours(items: Sequence[SeenPicture]) -> list[SeenPicture]:
    """For each picture another one of the set."""
    return [items[row - 1] for row in range(len(items))]
