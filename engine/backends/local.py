"""Builds the generation loop on this machine's own device. Imported on the engine's thread only."""

from engine.config import EngineConfig
from engine.decoder.language_model import LanguageModel
from engine.device import bound_threads
from engine.fusion.types import TurnFuser
from engine.generation.lexicon import lexicon_processors
from engine.generation.loop import GenerationLoop
from engine.generation.processors import MakeProcessors, no_processors
from engine.generation.scheduler import MAX_RUNNING, StepBudget
from engine.models.fetch import Report
from engine.models.store import ModelStore
from engine.runtime.choice import choose_runtime

# Whoever is being answered gets a word in about this time, whatever the others read meanwhile. A CPU is busy with a few
# hundred tokens, a GPU only with thousands.
MAX_MIXED_S = 0.25
ON_CPU = StepBudget(mixed=512, reading=1024, max_mixed_s=MAX_MIXED_S)
ON_GPU = StepBudget(mixed=1024, reading=4096, alone=1024, max_mixed_s=MAX_MIXED_S)


def build(config: EngineConfig, report: Report | None = None) -> GenerationLoop:
    """Load everything that replies need. Raises `EngineError` with a remedy."""
    bound_threads(config.num_threads)
    models = ModelStore(config.cache_dir)
    language_model = LanguageModel.load(config, models=models, report=report)
    fuser = _load_fuser(config, models, language_model)
    runtime = choose_runtime(config, language_model, models)
    return GenerationLoop(
        language_model,
        runtime,
        fuser,
        max_running=config.max_running or MAX_RUNNING,
        max_wait_s=config.max_wait_s,
        max_reply_s=config.max_reply_s,
        budget=ON_CPU if language_model.device.type == "cpu" else ON_GPU,
        make_processors=_lexicons(language_model) if config.lexicon else no_processors,
    )


def _lexicons(language_model: LanguageModel) -> MakeProcessors:
    return lexicon_processors(
        language_model.tokenizer.backend_tokenizer,
        vocab_size=language_model.vocab_size,
        end_ids=language_model.end_token_ids,
        device=language_model.device,
    )


def _load_fuser(config: EngineConfig, models: ModelStore, language_model: LanguageModel) -> TurnFuser | None:
    if config.fusion == "none" or not language_model.takes_prefix:
        return None
    # Imported here, so that an engine without fusion pays for none of it.
    from engine.fusion import load_fuser

    fuser: TurnFuser | None = load_fuser(config, models=models, language_model=language_model)
    return fuser
