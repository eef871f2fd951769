"""Finds trained fusion weights for a decoder and puts the pipeline together."""

import logging
from pathlib import Path

from engine.config import EngineConfig
from engine.encoders.image import ImageEncoder
from engine.encoders.text import TextEncoder
from engine.errors import ConfigurationError
from engine.fusion.config import FusionConfig
from engine.fusion.kinds import KINDS
from engine.fusion.pipeline import FusionPipeline
from engine.fusion.types import Backbone, TurnFuser
from engine.fusion.weights import bind, read_fusion, shipped_folder
from engine.models.store import ModelStore

logger = logging.getLogger(__name__)

SWITCHED_OFF = "none"


def load(config: EngineConfig, *, models: ModelStore, language_model: Backbone) -> TurnFuser | None:
    """See `engine.fusion.load_fuser`."""
    if config.fusion == SWITCHED_OFF:
        return None
    if config.fusion not in KINDS:
        raise ConfigurationError(f"engine.fusion is {config.fusion!r}; known are {', '.join((*KINDS, SWITCHED_OFF))}")
    folder = config.fusion_weights or shipped_folder(language_model.name)
    if folder is None:
        return None
    if config.fusion_weights is None and FusionConfig.load(folder).adapter != language_model.adapter:
        logger.warning(
            "pictures go unseen: the shipped fusion weights were trained with the shipped adapter of the decoder. Set "
            "engine.fusion_weights to some that were trained with yours (docs/training.md), or leave "
            "engine.decoder_adapter out"
        )
        return None
    return _load(folder, kind=config.fusion, models=models, language_model=language_model)


def _load(folder: Path, *, kind: str, models: ModelStore, language_model: Backbone) -> TurnFuser:
    saved = read_fusion(folder)
    if saved.config.decoder != language_model.name:
        raise ConfigurationError(
            f"the fusion weights in {folder} were trained for {saved.config.decoder}, not for {language_model.name}; "
            "train some for this decoder (docs/training.md), or leave engine.fusion_weights out"
        )
    if saved.config.kind != kind:
        raise ConfigurationError(
            f"the fusion weights in {folder} are of kind {saved.config.kind}, and engine.fusion is {kind}; "
            f'set engine.fusion = "{saved.config.kind}", or train some of kind {kind} (docs/training.md)'
        )
    if saved.config.adapter != language_model.adapter:
        raise ConfigurationError(
            f"the fusion weights in {folder} read {language_model.name} with {_in_words(saved.config.adapter)}, and it "
            f"runs with {_in_words(language_model.adapter)}; set engine.decoder_adapter to the one that they were "
            "trained with, or train some with this one (docs/training.md)"
        )
    device = language_model.device

    def tokenize(text: str) -> list[int]:
        return list(language_model.prompts.tokenise(text))

    model = bind(
        saved,
        tokenize=tokenize,
        embeddings=language_model.model.get_input_embeddings().weight,
        device=device,
    )
    image = ImageEncoder.load(models.ensure(saved.config.image_encoder), device=device)
    text = TextEncoder.load(models.ensure(saved.config.text_encoder), device=device)
    return FusionPipeline(
        model,
        image=image,
        text=text,
        device=device,
        dtype=language_model.dtype,
        class_names=saved.class_names,
        tokenize=tokenize,
    )


def _in_words(adapter: str) -> str:
    return f"the adapter {adapter}" if adapter else "no adapter"
