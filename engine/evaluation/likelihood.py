"""How likely the language model finds a human caption: with its picture, with another one, and without a prefix."""

from dataclasses import replace

from engine.evaluation.figures import Bootstrap, Figure, Measured, Values
from engine.evaluation.pictures import SeenPicture, in_character, neighbours
from engine.evaluation.subject import Subject
from engine.training.samples import TrainingSample, caption_sample

GROUP = "likelihood"


def measure_likelihood(
    subject: Subject, pictures: list[SeenPicture], *, set_name: str, bootstrap: Bootstrap
) -> Measured:
    """Loss per token of each picture's first caption, averaged over the pictures."""
    ways = {
        "described": [caption_sample(picture.captions[0], picture.features) for picture in pictures],
        "in character": [in_character(picture.features, picture.captions[0]) for picture in pictures],
    }
    return Measured(
        [
            Figure(GROUP, set_name, f"{name} ({way})", bootstrap.mean(items))
            for way, samples in ways.items()
            for name, items in _values(subject, pictures, samples).items()
        ]
    )


def _values(subject: Subject, pictures: list[SeenPicture], samples: list[TrainingSample]) -> dict[str, Values]:
    others = [
        replace(sample, images=(other.features,)) for sample, other in zip(samples, neighbours(pictures), strict=True)
    ]
    right, wrong = subject.losses(samples), subject.losses(others)
    without = subject.losses(samples, has_prefix=False)
    return {
        "caption NLL per token, its picture": right,
        "caption NLL per token, another picture": wrong,
        "caption NLL per token, no prefix": without,
        "gain of the picture over no prefix": without - right,
        "gain of its picture over another": wrong - right,
        "share of captions likelier with their picture": (right < wrong) + 0.5 * (right == wrong),
    }
