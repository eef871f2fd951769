"""What the persona stream is worth in a dialogue: the loss of a turn with its speaker's persona, with a stranger's, and
without one; the prompt tells nothing of the speaker, or everything."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from engine.evaluation.figures import Bootstrap, Estimate, Figure, Measured
from engine.evaluation.sets import draw
from engine.evaluation.subject import Subject
from engine.training.datasets import PersonaDialogue
from engine.training.samples import TrainingSample, dialogue_sample

GROUP = "dialogues"
EVERYTHING = 10**6
TOLD = {"nothing told": 0, "everything told": EVERYTHING}


def dialogue_samples(dialogues: Sequence[PersonaDialogue], *, num_told: int, seed: int) -> list[TrainingSample]:
    """One turn of each dialogue, the same whatever the prompt tells."""
    return [
        dialogue_sample(dialogue, Random(f"{seed}/{row}"), num_told=num_told)  # noqa: S311 - chance, not secrecy
        for row, dialogue in enumerate(dialogues)
    ]


def measure_dialogues(
    subject: Subject, dialogues: Sequence[PersonaDialogue], *, set_name: str, limit: int | None, bootstrap: Bootstrap
) -> Measured:
    """The loss of one turn of each dialogue."""
    drawn = draw(dialogues, limit=limit, seed=bootstrap.seed)
    figures: dict[str, Estimate] = {}
    for told, num_told in TOLD.items():
        samples = dialogue_samples(drawn, num_told=num_told, seed=bootstrap.seed)
        strangers = [replace(sample, facets=samples[row - 1].facets) for row, sample in enumerate(samples)]
        own = subject.losses(samples)
        unknown = subject.losses([replace(sample, facets=()) for sample in samples])
        stranger = subject.losses(strangers)
        without = subject.losses(samples, has_prefix=False)
        figures |= {
            f"reply NLL per token, persona stream on ({told})": bootstrap.mean(own),
            f"reply NLL per token, persona stream off ({told})": bootstrap.mean(unknown),
            f"reply NLL per token, a stranger's persona ({told})": bootstrap.mean(stranger),
            f"reply NLL per token, no prefix ({told})": bootstrap.mean(without),
            f"gain of the persona stream ({told})": bootstrap.mean(unknown - own),
            f"gain of the own persona over a stranger's ({told})": bootstrap.mean(stranger - own),
        }
    return Measured([Figure(GROUP, set_name, name, estimate) for name, estimate in figures.items()])
