"""A conversation with pictures as the input embeddings of a decoder that runs elsewhere.

Owns a copy of that decoder's embedding table and tokenizer, the encoders and the fusion; of the decoder itself nothing
else is loaded. Knows neither HTTP nor asyncio: everything here runs on one thread, the only one that touches torch.
Shapes: `n` tokens, `k` prefix tokens, `d_lm` width, `v` vocabulary.
"""

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from engine.config import EngineConfig
from engine.decoder.adapter import adapter_digest, adapter_folder
from engine.decoder.checkpoint import Checkpoint, open_checkpoint
from engine.decoder.language_model import OWN_CODE_AND_FILES_ONLY, clear_errors, load_tokenizer, sees_by_itself
from engine.decoder.prompt import PromptWriter, num_turns_to_drop
from engine.device import bound_threads
from engine.errors import WeightsError
from engine.fusion import load_fuser
from engine.fusion.loading import SWITCHED_OFF
from engine.fusion.types import FusedContext, TurnFuser
from engine.fusion.weights import shipped_folder
from engine.measure import TokenizerMeasure
from engine.models.fetch import Report
from engine.models.store import ModelStore
from engine.types import ContextSize, GenerationRequest, Role, TokenMeasure, Turn

# A steering is a bias on the whole vocabulary; what goes over the network is the part that is felt most.
NUM_STEERED_TOKENS = 16_384
_TABLE_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
_HEAD_NAMES = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True, slots=True)
class EmbeddedPrompt:
    """A prompt ready to be sent. `data` is base64 of `torch.save`, `logit_bias` goes by token id."""

    data: str = field(repr=False)
    num_tokens: int
    num_dropped_turns: int
    logit_bias: dict[int, float]
    end_token_ids: tuple[int, ...]


class EmbeddingTable:
    """The decoder as far as a prompt needs it: what `engine.fusion.load_fuser` asks of a language model.

    `table: (v, d_lm)` and `head: (v, d_lm)` are often the same tensor.
    """

    def __init__(
        self,
        table: Tensor,
        head: Tensor,
        prompts: PromptWriter,
        *,
        name: str,
        adapter: str = "",
        end_token_ids: tuple[int, ...] = (),
    ) -> None:
        self.model: Any = _Embeddings(table)
        self.head = head
        self.prompts = prompts
        self.name = name
        self.adapter = adapter
        self.end_token_ids = end_token_ids

    @property
    def device(self) -> torch.device:
        """Where it is: the fusion is computed beside it."""
        return self.head.device

    @property
    def dtype(self) -> torch.dtype:
        """The format in which prefixes are handed over."""
        return self.head.dtype

    def embed(self, token_ids: tuple[int, ...]) -> Tensor:
        """Input embeddings `(n, d_lm)`."""
        embeddings: Tensor = self.model.get_input_embeddings()(torch.tensor(token_ids, dtype=torch.long))
        return embeddings


class _Embeddings(nn.Module):
    """A model that has nothing but input embeddings."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        num_tokens, width = table.shape
        self._embeddings = nn.Embedding(num_tokens, width, _weight=table).requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        return self._embeddings


class PromptEmbedder:
    """Writes, fuses and embeds prompts."""

    def __init__(self, table: EmbeddingTable, fuser: TurnFuser, *, wire_dtype: torch.dtype = torch.float32) -> None:
        self._table = table
        self._fuser = fuser
        self._wire_dtype = wire_dtype

    @property
    def decoder(self) -> str:
        """The decoder that prompts are made for, as the configuration calls it."""
        return self._table.name

    def measure(self) -> TokenMeasure:
        """What texts cost in these prompts. How long they may be is for the server to say."""
        prompts = self._table.prompts
        size = ContextSize(per_turn=prompts.num_tokens_per_turn() + self._fuser.num_prefix_tokens)
        return TokenizerMeasure(prompts.tokenizer_json(), size)

    @torch.inference_mode()
    def embed_text(self, text: str) -> str:
        """Plain text in the form of `EmbeddedPrompt.data`."""
        return _packed(self._table.embed(self._table.prompts.tokenise(text)).to(self._wire_dtype))

    @torch.inference_mode()
    def embed(
        self, request: GenerationRequest, *, max_tokens: int | None, num_dropped_turns: int = 0
    ) -> EmbeddedPrompt | None:
        """The prompt without at least the `num_dropped_turns` oldest turns, or `None` where no turn has a prefix.

        Raises `PromptTooLong` where even the last turn takes more than `max_tokens`.
        """
        turns = request.turns[num_dropped_turns:]
        if max_tokens is not None:
            dropped = num_turns_to_drop(
                turns, lambda num: self._num_tokens(request, turns[num:]), max_tokens=max_tokens
            )
            turns = turns[dropped:]
        contexts = self._fuse(request, turns)
        if not contexts:
            return None
        pieces = self._table.prompts.write(
            request.system_prompt,
            turns,
            places=contexts,
            reply_start=request.reply_start,
            insertions=request.insertions,
        )
        parts = [self._table.embed(pieces.pieces[0])]
        for place, piece in zip(pieces.places, pieces.pieces[1:], strict=True):
            parts += [contexts[place].prefix.to(parts[0].dtype), self._table.embed(piece)]
        embeddings = torch.cat(parts)
        answered = contexts.get(len(turns) - 1)
        steering = answered.strongest_steering if answered is not None else None
        return EmbeddedPrompt(
            _packed(embeddings.to(self._wire_dtype)),
            len(embeddings),
            len(request.turns) - len(turns),
            {} if steering is None else strongest_biases(steering @ self._table.head.T),
            self._table.end_token_ids,
        )

    def _fuse(self, request: GenerationRequest, turns: tuple[Turn, ...]) -> dict[int, FusedContext]:
        contexts = {
            index: self._fuser.fuse(request.persona, turn.text, turn.images)
            for index, turn in enumerate(turns)
            if turn.role is Role.USER
        }
        return {index: context for index, context in contexts.items() if context is not None}

    def _num_tokens(self, request: GenerationRequest, turns: tuple[Turn, ...]) -> int:
        num_user_turns = sum(turn.role is Role.USER for turn in turns)
        written = self._table.prompts.write(
            request.system_prompt, turns, reply_start=request.reply_start, insertions=request.insertions
        )
        return written.num_tokens + self._fuser.num_prefix_tokens * num_user_turns


def load_embedder(config: EngineConfig, report: Report | None = None) -> PromptEmbedder | None:
    """What makes prompts of pictures for `config.decoder`, or `None` where no fusion was trained for it.

    Raises `EngineError` with a remedy.
    """
    if config.fusion == SWITCHED_OFF or (config.fusion_weights is None and shipped_folder(config.decoder) is None):
        return None
    bound_threads(config.num_threads)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    models = ModelStore(config.cache_dir)
    checkpoint = open_checkpoint(config, models, report)
    with clear_errors(checkpoint.name):
        if sees_by_itself(AutoConfig.from_pretrained(checkpoint.folder, **OWN_CODE_AND_FILES_ONLY)):
            return None
        table = _load_table(config, checkpoint)
    fuser = load_fuser(config, models=models, language_model=table)
    if fuser is None:
        return None
    is_half = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")).endswith("16")
    return PromptEmbedder(table, fuser, wire_dtype=torch.float16 if is_half else torch.float32)


def strongest_biases(biases: Tensor, *, num_tokens: int = NUM_STEERED_TOKENS) -> dict[int, float]:
    """Of biases `(v,)` those that differ most from the usual one. What all tokens share changes no choice."""
    felt = biases.float() - biases.float().median()
    strongest = felt.abs().topk(min(num_tokens, len(felt))).indices
    return {int(token): round(float(felt[token]), 3) for token in strongest if felt[token]}


def _packed(embeddings: Tensor) -> str:
    buffer = io.BytesIO()
    torch.save(embeddings.contiguous(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _load_table(config: EngineConfig, checkpoint: Checkpoint) -> EmbeddingTable:
    tensors = _read(checkpoint.folder, (*_TABLE_NAMES, *_HEAD_NAMES))
    table = next((tensors[name] for name in _TABLE_NAMES if name in tensors), None)
    if table is None:
        raise WeightsError(
            f"{checkpoint.name} has no table of input embeddings under a known name, so that pictures cannot be sent "
            'to the server as embeddings: set engine.fusion = "none"'
        )
    tokenizer = load_tokenizer(checkpoint.folder)
    return EmbeddingTable(
        table,
        next((tensors[name] for name in _HEAD_NAMES if name in tensors), table),
        PromptWriter(tokenizer, name=checkpoint.name),
        name=checkpoint.name,
        adapter=adapter_digest(adapter_folder(config.decoder_adapter, decoder=config.decoder)),
        end_token_ids=_end_token_ids(checkpoint.folder, tokenizer.eos_token_id),
    )


def _read(folder: Path, endings: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors whose names end so, by those endings, out of however many files there are."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - the library's file is no mapping
                ending = next((ending for ending in endings if name == ending or name.endswith(f".{ending}")), None)
                if ending is not None and ending not in found:
                    found[ending] = file.get_tensor(name).float()
    return found


def _end_token_ids(folder: Path, end_of_text: int | None) -> tuple[int, ...]:
    """Tokens that end a reply, as the model's authors say."""
    try:
        told = GenerationConfig.from_pretrained(folder, **OWN_CODE_AND_FILES_ONLY).eos_token_id
    except (OSError, json.JSONDecodeError):
        told = None
    ids = {told} if isinstance(told, int) else set(told or ())
    ids.add(end_of_text)
    return tuple(sorted(int(token_id) for token_id in ids if token_id is not None))
