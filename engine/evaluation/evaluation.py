"""All measurements over all sets of a folder, in one go.

Owns which measurement takes which set. What was wanted and could not be measured is said in a note.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigurationError
from engine.evaluation import captions, consistency, dialogues, likelihood, matching, personas
from engine.evaluation.figures import Bootstrap, Measured
from engine.evaluation.pictures import SeenPicture, open_set
from engine.evaluation.sets import FoundSets, find_sets
from engine.evaluation.subject import Subject
from engine.training.datasets import read_dialogues, read_styled_answers

GROUPS = (
    likelihood.GROUP,
    captions.GROUP,
    matching.GROUP,
    personas.GROUP,
    dialogues.GROUP,
    consistency.GROUP,
)  # fmt: skip
PICTURE_GROUPS = GROUPS[:3]

Advance = Callable[[str, int, int], None]
"""Told what is being done, how much is done, of how much."""


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What is measured, on how much. `train` is a folder with training sets, for the nearest-neighbour captions."""

    data: Path
    train: Path | None = None
    groups: tuple[str, ...] = GROUPS
    limit: int | None = None
    seed: int = 0


def parse_groups(text: str) -> tuple[str, ...]:
    """ "captions, matching" → the groups. Raises `ConfigurationError` for one that is unknown."""
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [name for name in wanted if name not in GROUPS]:
        raise ConfigurationError(f"--only {', '.join(unknown)}: there is no such group; known are {', '.join(GROUPS)}")
    return tuple(name for name in GROUPS if name in wanted) or GROUPS


def evaluate(
    subject: Subject, options: EvaluationOptions, *, advance: Advance, judge: consistency.Judge | None = None
) -> Measured:
    """Measure everything that `options` ask for. Raises `ConfigurationError` where no set fits what is asked."""
    found = find_sets(options.data)
    bootstrap = Bootstrap(options.seed)
    measured = Measured(notes=[f"{name}.jsonl is none of the known kinds of sets" for name in found.unknown])
    _measure_pictures(subject, options, found, measured=measured, bootstrap=bootstrap, advance=advance)
    for name in found.styled_answers if personas.GROUP in options.groups else ():
        advance(f"{personas.GROUP}: {name}", 0, 1)
        answers = read_styled_answers(options.data / f"{name}.jsonl")
        measured.add(
            personas.measure_personas(subject, answers, set_name=name, limit=options.limit, bootstrap=bootstrap)
        )
        advance(f"{personas.GROUP}: {name}", 1, 1)
    _measure_dialogues(subject, options, found, measured=measured, bootstrap=bootstrap, advance=advance, judge=judge)
    if not measured.figures:
        reasons = "; ".join(measured.notes) or "no set there fits what --only asks for"
        raise ConfigurationError(f"nothing could be measured in {options.data}: {reasons}")
    return measured


def _measure_pictures(
    subject: Subject,
    options: EvaluationOptions,
    found: FoundSets,
    *,
    measured: Measured,
    bootstrap: Bootstrap,
    advance: Advance,
) -> None:
    groups = [group for group in PICTURE_GROUPS if group in options.groups]
    if not groups or not found.pictures:
        return
    known = _training_pictures(subject, options, advance=advance) if captions.GROUP in groups else []
    for name in found.pictures:
        pictures, notes = open_set(
            subject.workshop, options.data, name, limit=options.limit, seed=options.seed, advance=advance
        )
        measured.notes += notes
        for group in groups:
            advance(f"{group}: {name}", 0, 1)
            if group == likelihood.GROUP:
                part = likelihood.measure_likelihood(subject, pictures, set_name=name, bootstrap=bootstrap)
            elif group == captions.GROUP:
                part = captions.measure_captions(
                    subject, pictures, training_pictures=known, set_name=name, bootstrap=bootstrap
                )
            else:
                part = matching.measure_matching(subject, pictures, set_name=name, bootstrap=bootstrap)
            measured.add(part)
            advance(f"{group}: {name}", 1, 1)


def _training_pictures(subject: Subject, options: EvaluationOptions, *, advance: Advance) -> list[SeenPicture]:
    """Pictures with several captions each, written by people; where a folder has none, all of its pictures."""
    if options.train is None:
        return []
    seen: list[SeenPicture] = []
    for name in find_sets(options.train).pictures:
        seen += open_set(subject.workshop, options.train, name, limit=None, seed=options.seed, advance=advance)[0]
    return [one for one in seen if len(one.captions) > 1] or seen


def _measure_dialogues(
    subject: Subject,
    options: EvaluationOptions,
    found: FoundSets,
    *,
    measured: Measured,
    bootstrap: Bootstrap,
    advance: Advance,
    judge: consistency.Judge | None,
) -> None:
    for name in found.dialogues:
        talks = read_dialogues(options.data / f"{name}.jsonl")
        if dialogues.GROUP in options.groups:
            advance(f"{dialogues.GROUP}: {name}", 0, 1)
            measured.add(
                dialogues.measure_dialogues(subject, talks, set_name=name, limit=options.limit, bootstrap=bootstrap)
            )
            advance(f"{dialogues.GROUP}: {name}", 1, 1)
        if consistency.GROUP in options.groups:
            advance(f"{consistency.GROUP}: {name}", 0, 1)
            measured.add(
                consistency.measure_consistency(
                    subject, talks, set_name=name, limit=options.limit, bootstrap=bootstrap, judge=judge
                )
            )
            advance(f"{consistency.GROUP}: {name}", 1, 1)
