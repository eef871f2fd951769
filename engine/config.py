"""What the engine is told at start. Filled from `commedia.toml` by `bot.app`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.types import SamplingSettings


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The engine's configuration.

    `decoder` is a catalogue name (see `commedia models list`), a folder, or a Hugging Face repository. `fusion_weights`
    is a folder with trained fusion weights; `None` takes the ones shipped for that decoder, if there are any.
    `decoder_adapter` is the folder of a low-rank adapter (LoRA) of the decoder, "none", or `None` for the shipped one.
    """

    cache_dir: Path
    backend: Literal["local", "echo"] = "local"
    decoder: str = "smollm2-135m-instruct"
    decoder_adapter: str | None = None
    fusion: str = "coattention"
    fusion_weights: Path | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    num_threads: int | None = None
    max_context_tokens: int = 4096
    max_waiting: int = 64
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
