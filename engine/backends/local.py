"""Builds the generation loop on this machine's own device. Imported on the engine's thread only."""

from engine.config import EngineConfig
from engine.decoder.language_model import LanguageModel
from engine.device import bound_threads
from engine.fusion import load_fuser
from engine.generation.loop import GenerationLoop
from engine.models.fetch import Report
from engine.models.store import ModelStore


def build(config: EngineConfig, report: Report | None = None) -> GenerationLoop:
    """Load everything that replies need. Raises `EngineError` with a remedy."""
    bound_threads(config.num_threads)
    models = ModelStore(config.cache_dir)
    language_model = LanguageModel.load(config, models=models, report=report)
    fuser = None
    if config.fusion != "none" and language_model.takes_prefix:
        fuser = load_fuser(config, models=models, language_model=language_model)
    return GenerationLoop(language_model, fuser)
