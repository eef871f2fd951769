"""How likely the language model finds a human caption: with its picture, with another one, and without a prefix."""

from dataclasses import replace

from engine.evaluation.figures import Bootstrap, Figure, Measured
from engine.evaluation.pictures import SeenPicture, caption_sample, neighbours
from engine.evaluation.subject import Subject

GROUP = "likelihood"


def measure_likelihood(
    subject: Subject, pictures: list[SeenPicture], *, set_name: str, bootstrap: Bootstrap
) -> Measured:
    """Loss per token of each picture's first caption, averaged over the pictures."""
    samples = [caption_sample(picture.features, picture.captions[0]) for picture in pictures]
    others = [
        replace(sample, images=(other.features,)) for sample, other in zip(samples, neighbours(pictures), strict=True)
    ]
    right, wrong = subject.losses(samples), subject.losses(others)
    without = subject.losses(samples, has_prefix=False)
    values = {
        "caption NLL per token, its picture": right,
        "caption NLL per token, another picture": wrong,
        "caption NLL per token, no prefix": without,
        "gain of the picture over no prefix": without - right,
        "gain of its picture over another": wrong - right,
        "share of captions likelier with their picture": (right < wrong) + 0.5 * (right == wrong),
    }
    return Measured([Figure(GROUP, set_name, name, bootstrap.mean(items)) for name, items in values.items()])
