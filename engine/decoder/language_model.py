"""The pretrained causal language model, or vision-language model, behind one small interface.

Owns loading, prefill and single decode steps over a KV cache. Knows neither requests nor scheduling nor how prefixes
are made. Shapes: `b` batch, `n` tokens, `k` prefix tokens, `d_lm` width, `v` vocabulary.
"""

import inspect
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PillowImage
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_torchvision_available

from engine.config import EngineConfig
from engine.decoder.adapter import adapter_digest, adapter_folder, merge_adapter
from engine.decoder.checkpoint import Checkpoint, open_checkpoint
from engine.decoder.prompt import PromptWriter, TokenPieces
from engine.device import choose_device, choose_dtype, free_bytes, is_out_of_memory
from engine.errors import ConfigurationError, DeviceError, EngineError, RequestError, WeightsError
from engine.models.fetch import Report
from engine.models.store import ModelStore
from engine.types import Image, Insertion, Role, Turn

# Room for activations and KV beside the weights, as a share of the weights.
WORKING_SHARE = 0.15
# Said outright: left open, transformers asks on the terminal whether a folder's own code may run.
OWN_CODE_AND_FILES_ONLY: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
# What a picture is at most when it comes from the bot: such cost the most.
LARGE_PICTURE = (1024, 1024)
END_OF_TURN_TEXTS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>")


@dataclass(slots=True)
class DecoderState:
    """One running generation's memory: its KV cache, what some vision-language models keep beside it, and what is added
    to its last states, `steering: (d_lm,)`."""

    cache: DynamicCache
    rope_deltas: Tensor | None = None
    steering: Tensor | None = None


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt ready for prefill. Prefix `i`, `(k, d_lm)`, lies between `pieces[i]` and `pieces[i + 1]`.

    `steering: (d_lm,)` is added to the last states while what follows is generated. `pictures` holds a processor's
    tensors beside the token ids; then there is one piece and no prefix, and `engine.decoder.seen` may have added what
    the decoder itself gets of it, `embeddings: (n, d_lm)` at `positions: (…, n)`.
    """

    pieces: tuple[tuple[int, ...], ...]
    prefixes: tuple[Tensor, ...] = ()
    steering: Tensor | None = None
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None
    positions: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Positions that the prompt takes."""
        return sum(map(len, self.pieces)) + sum(len(prefix) for prefix in self.prefixes)


class LanguageModel:
    """A backbone with its tokenizer. `name` is what the configuration calls it; `adapter` is the digest of the adapter
    in its weights, or empty."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        processor: ProcessorMixin | None = None,
        max_context_tokens: int = 4096,
        adapter: str = "",
    ) -> None:
        self.model: Any = model.train(False).requires_grad_(False)
        self.tokenizer = tokenizer
        self.processor: Any = processor
        self.name = name
        self.adapter = adapter
        self.prompts = PromptWriter(tokenizer, name=name, processor=processor)
        text_config = model.config.get_text_config(decoder=True)
        self.hidden_size = int(text_config.hidden_size)
        self.vocab_size = int(text_config.vocab_size)
        own_limit = getattr(text_config, "max_position_embeddings", None)
        self.max_context_tokens = min(max_context_tokens, own_limit or max_context_tokens)
        self.end_token_ids = _end_token_ids(model, tokenizer)
        self._keeps_last = "logits_to_keep" in inspect.signature(model.forward).parameters

    @classmethod
    def load(cls, config: EngineConfig, *, models: ModelStore, report: Report | None = None) -> "LanguageModel":
        """The decoder that `config` names, on its device. Raises `EngineError` with a remedy."""
        device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        adapter = adapter_folder(config.decoder_adapter, decoder=config.decoder)
        checkpoint = open_checkpoint(config, models, report)
        _require_memory(checkpoint, device, dtype)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        with clear_errors(checkpoint.name):
            model_config = AutoConfig.from_pretrained(checkpoint.folder, **OWN_CODE_AND_FILES_ONLY)
            is_vision = sees_by_itself(model_config)
            model = load_model(checkpoint.folder, dtype, is_vision=is_vision)
            if adapter is not None:
                merge_adapter(model, adapter, decoder=checkpoint.name)
            processor = _load_processor(checkpoint.folder) if is_vision else None
            tokenizer = processor.tokenizer if processor is not None else load_tokenizer(checkpoint.folder)
            return cls(
                model.to(device=device),  # type: ignore[call-arg]
                tokenizer,
                name=checkpoint.name,
                processor=processor,
                max_context_tokens=config.max_context_tokens,
                adapter=adapter_digest(adapter),
            )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The format of its weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def takes_pictures(self) -> bool:
        """Whether it sees pictures by tokens of its own."""
        return self.processor is not None

    @property
    def takes_prefix(self) -> bool:
        """Whether a fused prefix can enter: a backbone that already sees pictures goes without."""
        return self.processor is None

    @property
    def is_cache_plain(self) -> bool:
        """Whether the KV cache holds every position, so that a part of it can be used again."""
        return not self.takes_pictures and all(
            type(layer).__name__ == "DynamicLayer" for layer in self.new_state().cache.layers
        )

    def new_state(self) -> DecoderState:
        """An empty memory for one generation."""
        return DecoderState(DynamicCache(config=self.model.config))

    def embed(self, token_ids: Sequence[int] | Tensor) -> Tensor:
        """Input embeddings `(n, d_lm)` of token ids `(n,)`."""
        ids = torch.as_tensor(token_ids, dtype=torch.long, device=self.device)
        embeddings: Tensor = self.model.get_input_embeddings()(ids)
        return embeddings

    def encode(
        self, prompt: TokenPieces, prefixes: Sequence[Tensor] = (), *, steering: Tensor | None = None
    ) -> EncodedPrompt:
        """A text prompt with its prefixes, ready for prefill."""
        return EncodedPrompt(prompt.pieces, tuple(prefixes), steering)

    def encode_with_pictures(
        self,
        system_prompt: str,
        turns: Sequence[Turn],
        *,
        reply_start: str = "",
        insertions: Sequence[Insertion] = (),
    ) -> EncodedPrompt:
        """A vision-language prompt: the processor turns each picture into the model's own tokens."""
        text = self.prompts.render(system_prompt, turns, reply_start=reply_start, insertions=insertions)
        pictures = [_open(image) for turn in turns for image in turn.images]
        inputs = self.processor(text=[text], images=pictures or None, return_tensors="pt", add_special_tokens=False)
        ids = tuple(inputs.pop("input_ids")[0].tolist())
        inputs.pop("attention_mask", None)
        return EncodedPrompt((ids,), pictures=dict(inputs))

    def num_tokens_per_picture(self) -> int:
        """What a large picture costs in a prompt, for models that see by themselves."""
        data = io.BytesIO()
        PillowImage.new("RGB", LARGE_PICTURE, "gray").save(data, "PNG")
        turn = Turn(Role.USER, "a", (Image("", data.getvalue()),))
        with_picture, without = (self.encode_with_pictures("", [one]) for one in (turn, replace(turn, images=())))
        return with_picture.num_tokens - without.num_tokens

    @torch.inference_mode()
    def prefill(self, prompt: EncodedPrompt, state: DecoderState) -> Tensor:
        """Read the prompt beyond what `state` already holds; the next token's logits `(v,)` in float32.

        Without a prefix in what is read, the backbone gets plain token ids, as if there were no fusion.
        """
        state.steering = None if prompt.steering is None else prompt.steering.to(self.device, self.dtype)
        if prompt.pictures:
            return self._forward(state, input_ids=self._ids(prompt.pieces[0]), **self.on_device(prompt.pictures))
        num_cached = state.cache.get_seq_length()
        last = prompt.pieces[-1]
        if prompt.num_tokens - num_cached <= len(last):
            unread = last[len(last) - (prompt.num_tokens - num_cached) :]
            return self._forward(state, input_ids=self._ids(unread))
        return self._forward(state, inputs_embeds=self.embedded(prompt)[None, num_cached:])

    def bias_of(self, steering: Tensor) -> Tensor:
        """What `steering: (…, d_lm)`, added to the last states, adds to the logits: `(…, v)` in float32."""
        head = self.model.get_output_embeddings()
        biased: Tensor = head(steering.to(self.device, self.dtype)).float()
        bias = getattr(head, "bias", None)
        return biased if bias is None else biased - bias.float()

    @torch.inference_mode()
    def decode(self, token_id: int, state: DecoderState) -> Tensor:
        """Read one more token; the next one's logits `(v,)` in float32."""
        return self._forward(state, input_ids=self._ids((token_id,)))

    @torch.inference_mode()
    def decode_rows(self, token_ids: Tensor, state: DecoderState) -> Tensor:
        """`decode` for a state of several rows: token ids `(n,)` → logits `(n, v)` in float32."""
        with self._steered(state.steering):
            output = self.model(input_ids=token_ids[:, None], past_key_values=state.cache, use_cache=True)
        logits: Tensor = output.logits[:, -1].float()
        return logits

    @torch.inference_mode()
    def read_packed(
        self, embeddings: Tensor, positions: Tensor, rows: Tensor, *, steering: Tensor | None = None
    ) -> Tensor:
        """For calls whose attention keeps several sequences apart: embeddings `(t, d_lm)` at `positions: (…, 1, t)` →
        logits `(s, v)` in float32 of the packed positions `rows: (s,)`, with `steering: (s, d_lm)` added before the
        head."""
        inputs: dict[str, Any] = {"logits_to_keep": rows} if self._keeps_last else {}
        if steering is not None:
            steering = steering.to(self.device, self.dtype)
            if not self._keeps_last:
                steering = steering.new_zeros(len(embeddings), self.hidden_size).index_copy(0, rows, steering)
        with self._steered(steering):
            output = self.model(
                inputs_embeds=embeddings.to(self.device, self.dtype)[None],
                position_ids=positions,
                use_cache=False,
                **inputs,
            )
        logits: Tensor = output.logits[0] if self._keeps_last else output.logits[0, rows]
        return logits.float()

    def embedded(self, prompt: EncodedPrompt) -> Tensor:
        """All pieces and prefixes in order, `(n, d_lm)`."""
        if prompt.embeddings is not None:
            return prompt.embeddings
        parts = [self.embed(prompt.pieces[0])]
        for prefix, piece in zip(prompt.prefixes, prompt.pieces[1:], strict=True):
            parts += [prefix.to(self.device, parts[0].dtype), self.embed(piece)]
        return torch.cat(parts)

    def _forward(self, state: DecoderState, **inputs: object) -> Tensor:
        if self._keeps_last:
            inputs["logits_to_keep"] = 1
        with _own_rope_deltas(self.model, state), self._steered(state.steering):
            output = self.model(**inputs, past_key_values=state.cache, use_cache=True)
        logits: Tensor = output.logits[0, -1].float()
        return logits

    @contextmanager
    def _steered(self, steering: Tensor | None) -> Iterator[None]:
        """Add the steering to what the head reads: a bias on the vocabulary without a second look at it."""
        if steering is None:
            yield
            return
        head: nn.Module = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0] + steering,))
        try:
            yield
        finally:
            hook.remove()

    def _ids(self, token_ids: Sequence[int]) -> Tensor:
        return torch.tensor([token_ids], dtype=torch.long, device=self.device)

    def on_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A processor's tensors as the model takes them."""
        return {
            name: tensor.to(self.device, self.dtype) if tensor.is_floating_point() else tensor.to(self.device)
            for name, tensor in tensors.items()
        }


@contextmanager
def _own_rope_deltas(model: PreTrainedModel, state: DecoderState) -> Iterator[None]:
    """Qwen-VL's kin keep the offset of their picture positions on the module: give each generation its own."""
    owner: Any = next(
        (module for module in (model, getattr(model, "model", None)) if hasattr(module, "rope_deltas")), None
    )
    if owner is None:
        yield
        return
    owner.rope_deltas = state.rope_deltas
    yield
    state.rope_deltas = owner.rope_deltas


@contextmanager
def clear_errors(name: str) -> Iterator[None]:
    """What goes wrong inside transformers while loading the model `name`, as an error that says what to do."""
    try:
        yield
    except EngineError:
        raise
    except (ImportError, ModuleNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigurationError(f"{name} needs a Python package that is not installed: {reason}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ConfigurationError(
            f"{name} cannot be used as a chat model: {reason}. Choose a causal or vision-language model that "
            "transformers knows without code of its own (docs/models.md names some)"
        ) from error
    except (OSError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise DeviceError(_too_large(name)) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise WeightsError(f"the files of {name} are damaged or incomplete ({reason}): fetch them again") from error
    except Exception as error:
        # safetensors raises a class of its own that derives from Exception alone.
        if type(error).__module__.startswith("safetensors"):
            raise WeightsError(
                f"the files of {name} are damaged ({error}): delete them, and fetch them again"
            ) from error
        raise


def load_model(folder: Path, dtype: torch.dtype, *, is_vision: bool, **settings: object) -> PreTrainedModel:
    """The checkpoint in `folder`, whole. `settings` are the library's, as `attn_implementation`."""
    auto_class = AutoModelForImageTextToText if is_vision else AutoModelForCausalLM
    loaded: Any = auto_class.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **OWN_CODE_AND_FILES_ONLY, **settings
    )
    model: PreTrainedModel
    model, found = loaded
    # transformers fills gaps with random numbers, and replies would be noise. Vision towers may lack heads nobody uses.
    if missing := sorted(key for key in found["missing_keys"] if "vis" not in key):
        raise WeightsError(
            f"{folder} lacks {len(missing)} of the model's weights ({missing[0]}, …), or its config.json belongs to "
            "another model: fetch its files again"
        )
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. Raises `WeightsError` where it cannot be read."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **OWN_CODE_AND_FILES_ONLY)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise WeightsError(
            f"the tokenizer in {folder} cannot be read ({reason}): fetch the model's files again, or name a model "
            "whose tokenizer.json needs no code of its own"
        ) from error
    return tokenizer


def _load_processor(folder: Path) -> Any:  # noqa: ANN401 - what a processor has differs from model to model
    try:
        return AutoProcessor.from_pretrained(folder, **OWN_CODE_AND_FILES_ONLY)  # type: ignore[no-untyped-call]
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        if is_torchvision_available():
            raise
        # Without torchvision some processors fail far from where they need it, with errors that do not name it.
        raise ImportError("torchvision (for its pictures): install the build that fits your torch") from error


def sees_by_itself(config: PreTrainedConfig) -> bool:
    """Whether it is a vision-language model's."""
    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and getattr(config, "vision_config", None) is not None


def _require_memory(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    needed = int(checkpoint.num_bytes(dtype.itemsize) * (1 + WORKING_SHARE))
    free = free_bytes(device)
    if free is not None and needed > free:
        raise DeviceError(
            f"{_too_large(checkpoint.name)} It needs about {needed / 1e9:.1f} GB in "
            f"{str(dtype).removeprefix('torch.')}, and {free / 1e9:.1f} GB are free on {device}"
        )


def _too_large(name: str) -> str:
    return (
        f"{name} does not fit into memory: name a smaller model as engine.decoder (docs/models.md lists some by size; "
        '"smollm2-135m-instruct" runs anywhere), set engine.dtype = "bfloat16", or end other programs on the device.'
    )


def _end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a reply: what the model's authors say, and the usual marks at the end of a turn."""
    generation_config: GenerationConfig | None = model.generation_config
    configured = generation_config.eos_token_id if generation_config is not None else None
    ids = {configured} if isinstance(configured, int) else set(configured or ())
    ids.add(tokenizer.eos_token_id)
    vocabulary = tokenizer.get_added_vocab()
    ids.update(vocabulary[text] for text in END_OF_TURN_TEXTS if text in vocabulary)
    return frozenset(int(token_id) for token_id in ids if token_id is not None)


def _open(image: Image) -> PillowImage.Image:
    try:
        return PillowImage.open(io.BytesIO(image.data)).convert("RGB")
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise RequestError("a picture cannot be decoded: send it again as a JPEG or PNG file") from error
