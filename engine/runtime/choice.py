"""Which runtime computes this model on this device: the fastest one that proves to compute what the model computes.

Owns the choice, the proof, the size of the KV cache, and where exported decoders are kept.
"""

import hashlib
import io
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock
from PIL import Image as PillowImage
from torch import Tensor

from engine.config import EngineConfig
from engine.decoder.adapter import adapter_folder, merge_adapter
from engine.decoder.checkpoint import open_checkpoint
from engine.decoder.language_model import EncodedPrompt, LanguageModel, load_model
from engine.decoder.packing import can_pack, pack_linear_layers
from engine.decoder.prompt import TokenPieces
from engine.decoder.seen import NotSeparable, see
from engine.device import free_bytes, is_out_of_memory, num_physical_cores
from engine.errors import ConfigurationError
from engine.generation.blocks import Lane
from engine.generation.scheduler import MAX_RUNNING
from engine.models.store import ModelStore
from engine.runtime.paged import BLOCK_SIZE, KVShape, PagedRuntime
from engine.runtime.plain import plain_runtime
from engine.runtime.types import Runtime, Span, Unsupported
from engine.types import Image, Role, Turn

logger = logging.getLogger(__name__)

# Changes with what is written to disk.
EXPORT_VERSION = 2
# Of the memory that is free, this share may hold conversations; on a CPU others need some, too.
SHARE_ON_DEVICE, SHARE_ON_CPU = 0.8, 0.25
MAX_CPU_CACHE_BYTES = 512 << 20
# Export holds the weights twice in float32, and the device's own copy.
EXPORT_COPIES = 2.5
# Two sequences side by side, longer than a block and than the positions that bfloat16 can tell apart.
PROOF_LENGTHS = (320, 45)
# Nats a position. Rounding to bfloat16 gives about 0.002, to int8 about 0.005; positions gone wrong give 0.3.
MAX_DIVERGENCE = 0.05
MAX_NAME_CHARACTERS = 60
# Of one decoder, so many exports stay on disk.
MAX_EXPORTS = 3
# How models that were built otherwise than this room expects say so, beside `Unsupported`.
SURPRISES = (AttributeError, LookupError, TypeError, ValueError, RuntimeError)


def choose_runtime(config: EngineConfig, language_model: LanguageModel, models: ModelStore) -> Runtime:
    """Raises `EngineError` with a remedy where the configuration asks for what cannot be."""
    runtime: Runtime | None = None
    if language_model.device.type == "cpu" and config.runtime in ("auto", "openvino"):
        runtime = _openvino(config, language_model, models)
    if can_pack(language_model.model):
        # Also beside OpenVINO: what is done beside replies, as describing a picture, goes through the model itself.
        pack_linear_layers(language_model.model)
    if runtime is None:
        runtime = _paged(config, language_model)
    logger.info(
        "the decoder is computed by %s; its cache holds %d positions",
        runtime.name,
        runtime.num_blocks * runtime.block_size,
    )
    return runtime


def num_blocks_for(config: EngineConfig, language_model: LanguageModel, block_bytes: int) -> int:
    """How many blocks of `block_bytes` the KV cache gets. Raises `ConfigurationError` where not even one conversation
    would fit."""
    num_needed = -(-language_model.max_context_tokens // BLOCK_SIZE)
    if config.kv_cache_mb is not None:
        num_blocks = config.kv_cache_mb * (1 << 20) // block_bytes
        if num_blocks < num_needed:
            raise ConfigurationError(
                f"engine.kv_cache_mb = {config.kv_cache_mb} holds {num_blocks * BLOCK_SIZE} tokens, and one "
                f"conversation may have {language_model.max_context_tokens}: set it to "
                f"{-(-num_needed * block_bytes // (1 << 20))} or more, or lower engine.max_context_tokens"
            )
        return num_blocks
    is_cpu = language_model.device.type == "cpu"
    room = int((free_bytes(language_model.device) or 0) * (SHARE_ON_CPU if is_cpu else SHARE_ON_DEVICE))
    if is_cpu:
        room = min(room, MAX_CPU_CACHE_BYTES)
    most = num_needed * (config.max_running or MAX_RUNNING) * 2
    return max(num_needed, min(room // block_bytes, most))


def _paged(config: EngineConfig, language_model: LanguageModel) -> Runtime:
    """Everybody in one call of the model's own modules; one after the other where that is not to be had."""
    try:
        block_bytes = KVShape.of(language_model.model).block_bytes(language_model.dtype.itemsize)
        runtime = PagedRuntime(language_model, num_blocks=num_blocks_for(config, language_model, block_bytes))
        _prove(runtime, language_model)
    except (Unsupported, *SURPRISES) as reason:
        if is_out_of_memory(reason):
            raise
        logger.info("%s runs one reply at a time: %s", language_model.name, _first_line(reason))
        return plain_runtime(language_model, max_running=config.max_running or MAX_RUNNING)
    return runtime


def _openvino(config: EngineConfig, language_model: LanguageModel, models: ModelStore) -> Runtime | None:
    """On a CPU, if OpenVINO is there and can compute this model; an error where the configuration insists on it."""
    try:
        if language_model.takes_pictures:
            raise Unsupported("it sees pictures by itself")
        runtime = _build_openvino(config, language_model, models)
        _prove(runtime, language_model)
    except (ImportError, OSError, Unsupported, *SURPRISES) as reason:
        if config.runtime == "openvino":
            raise ConfigurationError(
                f"{language_model.name} cannot be computed by OpenVINO ({_first_line(reason)}): set "
                'engine.runtime = "auto"'
            ) from reason
        logger.info("OpenVINO is not used: %s", _first_line(reason))
        return None
    return runtime


def _build_openvino(config: EngineConfig, language_model: LanguageModel, models: ModelStore) -> Runtime:
    from engine.runtime.openvino_export import Export
    from engine.runtime.openvino_paged import OpenVINORuntime

    is_int8 = _is_int8(config, language_model)
    path = _exported(config, language_model, models, is_int8=is_int8)
    try:
        found = Export.load(path)
    except SURPRISES as error:
        logger.warning("%s is damaged, and is prepared again: %s", path.name, _first_line(error))
        path.unlink(missing_ok=True)
        found = Export.load(_exported(config, language_model, models, is_int8=is_int8))
    num_threads = torch.get_num_threads()
    dtype = _openvino_dtype(language_model, min(num_threads, num_physical_cores()))
    return OpenVINORuntime(
        found.paged(),
        num_blocks=num_blocks_for(config, language_model, found.shape.block_bytes(dtype.itemsize)),
        dtype=dtype,
        num_threads=num_threads,
        width=language_model.hidden_size,
    )


def _openvino_dtype(language_model: LanguageModel, num_threads: int) -> torch.dtype:
    """OpenVINO 2026.4 divides by zero, and takes the process with it, where it is to compute in bfloat16 on one thread
    of a CPU with AMX."""
    return language_model.dtype if num_threads > 1 else torch.float32


def _is_int8(config: EngineConfig, language_model: LanguageModel) -> bool:
    """Where the CPU multiplies bfloat16 in hardware, 8-bit weights help one chat a little and slow down many; elsewhere
    there is half as much to read."""
    if config.weights == "auto":
        return language_model.dtype is torch.float32 and config.dtype == "auto"
    return config.weights == "int8"


def _exported(config: EngineConfig, language_model: LanguageModel, models: ModelStore, *, is_int8: bool) -> Path:
    """The decoder as OpenVINO reads it, exported once for these weights."""
    import openvino

    from engine.runtime.openvino_export import export

    checkpoint = open_checkpoint(config, models, None)
    files = sorted((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in checkpoint.folder.iterdir())
    origin = (EXPORT_VERSION, openvino.__version__, files, language_model.adapter, language_model.max_context_tokens)
    digest = hashlib.sha256(json.dumps((*origin, is_int8)).encode()).hexdigest()[:16]
    folder = config.cache_dir / "openvino"
    name = re.sub(r"[^\w.-]+", "--", language_model.name)[-MAX_NAME_CHARACTERS:]
    path = folder / f"{name}-{digest}.xml"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if path.exists():
            path.touch()
            return path
        _require_memory(language_model)
        logger.info("preparing %s for this CPU, once", language_model.name)
        model = load_model(checkpoint.folder, torch.float32, is_vision=False)
        adapter = adapter_folder(config.decoder_adapter, decoder=config.decoder)
        if adapter is not None:
            merge_adapter(model, adapter, decoder=checkpoint.name)
        exported = export(model, max_positions=language_model.max_context_tokens)
        if is_int8:
            exported.quantise()
        _tidy(folder, name)
        unfinished = folder / f"unfinished-{digest}.xml"
        exported.save(unfinished)
        # The file that is looked for comes last, so that a half-written export is never taken for one.
        unfinished.with_suffix(".bin").rename(path.with_suffix(".bin"))
        unfinished.rename(path)
    return path


def _tidy(folder: Path, name: str) -> None:
    """Of the exports of one decoder, with other adapters, formats or versions, keep those that were used last."""
    # Another model's name may begin alike: only the digest may follow.
    of_this = [path for path in folder.glob("*.xml") if path.stem.rpartition("-")[0] == name]
    kept = sorted(of_this, key=lambda path: path.stat().st_mtime)
    for earlier in [*kept[: 1 - MAX_EXPORTS], *folder.glob("unfinished-*.xml")]:
        earlier.unlink()
    for weights in folder.glob("*.bin"):
        if not weights.with_suffix(".xml").exists():
            weights.unlink()


def _require_memory(language_model: LanguageModel) -> None:
    needed = sum(parameter.numel() for parameter in language_model.model.parameters()) * 4 * EXPORT_COPIES
    free = free_bytes(language_model.device)
    if free is not None and needed > free:
        raise Unsupported(f"exporting it takes about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")


@torch.inference_mode()
def _prove(runtime: Runtime, language_model: LanguageModel) -> None:
    """Raises `Unsupported` unless `runtime`, two sequences side by side, predicts what the model itself predicts."""
    generator = torch.Generator().manual_seed(0)
    lengths = _proof_lengths(runtime.num_blocks, language_model.max_context_tokens)
    prompts = [torch.randint(language_model.vocab_size, (length,), generator=generator).tolist() for length in lengths]
    lanes, first_free = [], 0
    for prompt in prompts:
        num_blocks = -(-len(prompt) // BLOCK_SIZE)
        lanes.append(Lane(list(prompt), list(range(first_free, first_free + num_blocks))))
        first_free += num_blocks
    encoded = [language_model.encode(TokenPieces((tuple(prompt),))) for prompt in prompts]
    _compare(runtime, language_model, lanes, encoded)
    if language_model.takes_pictures:
        seen = _about_a_picture(language_model)
        blocks = list(range(-(-seen.num_tokens // BLOCK_SIZE)))
        _compare(runtime, language_model, [Lane([], blocks)], [seen])


def _proof_lengths(num_blocks: int, max_context_tokens: int) -> list[int]:
    """Of a cache with few blocks, half are for the second sequence at most."""
    longest, shortest = (min(length, max_context_tokens - 1) for length in PROOF_LENGTHS)
    shortest = min(shortest, num_blocks // 2 * BLOCK_SIZE)
    longest = min(longest, (num_blocks - -(-shortest // BLOCK_SIZE)) * BLOCK_SIZE)
    return [length for length in (longest, shortest) if length > 0]


def _compare(
    runtime: Runtime, language_model: LanguageModel, lanes: Sequence[Lane], prompts: Sequence[EncodedPrompt]
) -> None:
    """Raises `Unsupported` where `runtime` predicts something else after `prompts` than the model by itself."""
    found = _read_in_parts(runtime, language_model, lanes, prompts)
    for row, prompt in zip(found, prompts, strict=True):
        unseen = replace(prompt, embeddings=None, positions=None)
        divergence = _divergence(language_model.prefill(unseen, language_model.new_state()), row)
        if not divergence <= MAX_DIVERGENCE:
            raise Unsupported(f"it computes something else than the model: {divergence:.3f} nats a position apart")


def _about_a_picture(language_model: LanguageModel) -> EncodedPrompt:
    """A prompt with a picture of noise. Raises `Unsupported` where it cannot be taken apart."""
    noise = PillowImage.frombytes("RGB", (64, 64), bytes(number * number % 251 for number in range(64 * 64 * 3)))
    file = io.BytesIO()
    noise.save(file, "PNG")
    image = Image(hashlib.sha256(file.getvalue()).hexdigest(), file.getvalue())
    prompt = language_model.encode_with_pictures("Be kind.", [Turn(Role.USER, "What is it?", (image,))])
    try:
        return see(language_model, prompt)
    except NotSeparable as reason:
        raise Unsupported(str(reason)) from reason


def _divergence(expected: Tensor, found: Tensor) -> float:
    """Kullback-Leibler divergence of two rows of logits `(v,)`, in nats."""
    p, q = expected.float().log_softmax(-1), found.to(expected.device).float().log_softmax(-1)
    return float((p.exp() * (p - q)).sum())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _read_in_parts(
    runtime: Runtime, language_model: LanguageModel, lanes: Sequence[Lane], prompts: Sequence[EncodedPrompt]
) -> Tensor:
    """Last logits `(s, v)`: all but the last token first, then that one, as if it had been chosen."""
    wholes = [
        Span(lane, 0, language_model.embedded(prompt), has_logits=True, positions=prompt.positions)
        for lane, prompt in zip(lanes, prompts, strict=True)
    ]
    runtime.run([_part(whole, slice(0, -1), has_logits=False) for whole in wholes])
    return runtime.run([_part(whole, slice(-1, None), has_logits=True) for whole in wholes])


def _part(whole: Span, places: slice, *, has_logits: bool) -> Span:
    positions = None if whole.positions is None else whole.positions[..., places]
    start = places.indices(whole.num_tokens)[0]
    return replace(whole, start=start, embeddings=whole.embeddings[places], has_logits=has_logits, positions=positions)
