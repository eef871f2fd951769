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

    `runtime` is what computes the decoder on a CPU, `weights` in which format it keeps them there. `kv_cache_mb` bounds
    the memory of running and remembered conversations; `None` takes a share of what is free. A step that takes longer
    than `max_step_s` means that the device hangs. `lexicon` lets personas' lexicons and lengths act on decoding.

    `url`, `api_key`, `model` and `adapters` (names that a server knows) are for the backends "openai" and "vllm",
    `num_replicas` (fewest and most) for "ray".
    """

    cache_dir: Path
    backend: Literal["local", "echo", "openai", "vllm", "ray"] = "local"
    decoder: str = "smollm2-135m-instruct"
    decoder_adapter: str | None = None
    fusion: str = "coattention"
    fusion_weights: Path | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    num_threads: int | None = None
    max_context_tokens: int = 4096
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    weights: Literal["auto", "full", "int8"] = "auto"
    max_running: int | None = None
    kv_cache_mb: int | None = None
    max_waiting: int = 64
    max_waiting_per_user: int = 4
    max_wait_s: float = 300.0
    max_reply_s: float = 300.0
    max_step_s: float = 120.0
    lexicon: bool = True
    url: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    adapters: tuple[str, ...] = ()
    num_replicas: tuple[int, int] = (1, 1)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
