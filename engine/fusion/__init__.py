"""Fusion: pictures, words and the persona of one turn into a prefix that the language model reads.

`load_fuser` is the way in. Importing this package brings in no model; what it needs is imported when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.fusion.types import Backbone, TurnFuser
    from engine.models.store import ModelStore


def load_fuser(config: EngineConfig, *, models: ModelStore, language_model: Backbone) -> TurnFuser | None:
    """The fuser for a decoder, or `None` where there are no trained weights for it, or fusion is switched off.

    Takes the folder that `config.fusion_weights` names, else the weights shipped for that decoder. Raises
    `ConfigurationError` where named weights do not fit, `WeightsError` where an encoder cannot be loaded.
    """
    from engine.fusion.loading import load  # here, so that engine.fusion.types can be imported cheaply and first

    return load(config, models=models, language_model=language_model)
