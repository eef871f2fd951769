"""The training tasks, and how a run's options choose among them."""

from engine.errors import ConfigurationError
from engine.fusion.model import FusionModel
from engine.training.datasets import DataSets
from engine.training.options import TrainingOptions
from engine.training.ridge import fit_embeddings
from engine.training.samples import PersonaSamples, PictureSamples, PictureSource
from engine.training.tasks.base import Task
from engine.training.tasks.language import CaptioningTask, PersonaTask
from engine.training.tasks.masked import MaskedTask
from engine.training.tasks.matching import MatchingTask, PairSamples
from engine.training.workshop import Advance, Workshop, concept_source


def build_tasks(
    model: FusionModel,
    *,
    workshop: Workshop,
    data: DataSets,
    options: TrainingOptions,
    advance: Advance,
    is_held_out: bool = False,
) -> list[Task]:
    """The tasks that `options` ask for, on `data`. Pictures are encoded where they have not been.

    Raises `ConfigurationError` where the data has nothing for any of them.
    """
    things = [workshop.encode(pictures, advance) for pictures in data.with_role("things")]
    scenes = [workshop.encode(pictures, advance) for pictures in data.with_role("scenes")]
    if "matching" in options.active_tasks() and not is_held_out:
        fit_embeddings(model, scenes=scenes, things=things, encoder=workshop.encoder, seed=options.seed)
    tasks: list[Task] = []
    for name, told in options.active_tasks().items():
        size = told.batch_size
        if name == "persona":
            if data.answers or data.dialogues or data.conversations:
                tasks.append(_persona(model, workshop, data, options, advance=advance))
        elif not (things or scenes):
            continue
        elif name == "captioning":
            tasks.append(
                CaptioningTask(
                    model,
                    PictureSamples(
                        seed=options.seed,
                        concepts=concept_source(workshop, is_held_out=is_held_out),
                        things=things,
                        scenes=scenes,
                        shares=options.mix.shares(),
                        patch_dropout=options.patch_dropout,
                    ),
                    encoder=workshop.encoder,
                    decoder=workshop.decoder,
                    batch_size=size,
                    focus_weight=options.focus_weight,
                )
            )
        else:
            tasks.append(_pairs(name, model, workshop, things, scenes, seed=options.seed, batch_size=size))
    if not tasks:
        raise ConfigurationError(
            f"the data has nothing for {', '.join(options.active_tasks())}: pictures are needed for captioning, "
            "matching and masked, dialogues for persona (docs/training.md)"
        )
    return tasks


def _persona(
    model: FusionModel, workshop: Workshop, data: DataSets, options: TrainingOptions, *, advance: Advance
) -> PersonaTask:
    shown = [workshop.encode(pictures, advance) for pictures in data.with_role("shown")]
    return PersonaTask(
        model,
        PersonaSamples(
            seed=options.seed,
            answers=data.answers,
            dialogues=data.dialogues,
            conversations=data.conversations,
            shown={
                picture.digest: source.features.row(row)
                for source in shown
                for row, picture in enumerate(source.pictures)
            },
        ),
        encoder=workshop.encoder,
        decoder=workshop.decoder,
        batch_size=options.tasks.persona.batch_size,
        contrast_weight=options.contrast_weight,
    )


def _pairs(
    name: str,
    model: FusionModel,
    workshop: Workshop,
    things: list[PictureSource],
    scenes: list[PictureSource],
    *,
    seed: int,
    batch_size: int,
) -> Task:
    samples = PairSamples(seed=seed, things=things, scenes=scenes)
    if name == "matching":
        return MatchingTask(model, samples, encoder=workshop.encoder, seed=seed, batch_size=batch_size)
    return MaskedTask(model, samples, encoder=workshop.encoder, text=workshop.text, seed=seed, batch_size=batch_size)
