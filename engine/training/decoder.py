"""The frozen language model as training sees it: the loss of a reply behind a prompt with a soft prefix in it.

The prompt is laid out as in a real conversation: head (system prompt, history, up to the words of the user's turn),
soft prefix, tail (the user's words, up to the reply). Heads need no gradient and repeat, so their keys and values are
computed once and kept. Shapes: `b` batch, `k` prefix tokens, `s` tokens behind the head, `p` head tokens, `d_lm`
width.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, DynamicCache

from engine.decoder.adapter import merge_adapter
from engine.decoder.language_model import (
    OWN_CODE_AND_FILES_ONLY,
    clear_errors,
    load_model,
    load_tokenizer,
    sees_by_itself,
)
from engine.decoder.prompt import PromptWriter
from engine.errors import ConfigurationError
from engine.fusion.model import FusedBatch
from engine.types import Turn

# Keys and values of so many head tokens are kept: 23 kB each for the default decoder.
MAX_KEPT_HEAD_TOKENS = 100_000


class _FlatLinear(nn.Linear):
    """A linear layer over rows. The backward pass of a three-dimensional one copies its weight for every sequence."""

    def forward(self, rows: Tensor) -> Tensor:
        flat = functional.linear(rows.reshape(-1, rows.shape[-1]), self.weight, self.bias)
        return flat.view(*rows.shape[:-1], -1)


@dataclass(frozen=True, slots=True)
class Head:
    """A prompt up to the user's words. `keys_values: (layers, 2, kv_heads, p, d_head)`."""

    keys_values: Tensor

    @property
    def num_tokens(self) -> int:
        """`p`."""
        return self.keys_values.shape[3]


@dataclass(frozen=True, slots=True)
class ReplyExample:
    """What stands behind a head: the user's words and the reply, the reply's tokens weighted in the loss."""

    head: Head
    tail_ids: tuple[int, ...]
    reply_ids: tuple[int, ...]
    reply_weights: tuple[float, ...]


class FrozenDecoder:
    """A causal language model that is not trained."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:  # noqa: ANN401 - any causal model's classes
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.prompts = PromptWriter(tokenizer, name=name)
        self.end_of_reply: str = tokenizer.eos_token or ""
        self._heads: OrderedDict[tuple[int, ...], Head] = OrderedDict()
        self.device: torch.device = model.device
        for module in self.model.modules():
            if type(module) is nn.Linear:
                module.__class__ = _FlatLinear

    @classmethod
    def load(
        cls, folder: Path, *, name: str, dtype: torch.dtype, device: str, adapter: Path | None = None
    ) -> "FrozenDecoder":
        """The checkpoint in `folder`, with the low-rank adapter in the folder `adapter` merged into it. Raises
        `EngineError` with a remedy, also for a model that sees pictures by itself: it takes no prefix."""
        with clear_errors(name):
            if sees_by_itself(AutoConfig.from_pretrained(folder, **OWN_CODE_AND_FILES_ONLY)):
                raise ConfigurationError(
                    f"{name} sees pictures by itself and is not trained here; let the option decoder name a causal "
                    "language model"
                )
            tokenizer: Any = load_tokenizer(folder)
            model: Any = load_model(folder, dtype, is_vision=False, attn_implementation="eager")
            if adapter is not None:
                merge_adapter(model, adapter, decoder=name)
            return cls(model.to(device), tokenizer, name=name)

    @property
    def embeddings(self) -> Tensor:
        """The table of input embeddings, `(vocabulary, d_lm)`."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table

    @property
    def embedding_scale(self) -> float:
        """Root mean square of the input embeddings."""
        return float(self.embeddings.float().pow(2).mean().sqrt())

    def tokenize(self, text: str) -> list[int]:
        """Ids without marks of beginning or end."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def prompt(self, system_prompt: str, turns: Sequence[Turn]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids before and behind the place of the prefix in the last turn, as in a real conversation."""
        pieces = self.prompts.write(system_prompt, turns, places={len(turns) - 1}).pieces
        return pieces[0], pieces[1]

    @torch.no_grad()
    def read_head(self, head_ids: tuple[int, ...]) -> Head:
        """Keys and values of a prompt's head; those of the heads met last are kept."""
        head = self._heads.get(head_ids)
        if head is None:
            cache = self.model.base_model(
                input_ids=torch.tensor([head_ids], device=self.device), use_cache=True
            ).past_key_values
            layers = [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]
            head = self._heads[head_ids] = Head(torch.stack(layers))
        self._heads.move_to_end(head_ids)
        while len(self._heads) > 1 and sum(kept.num_tokens for kept in self._heads.values()) > MAX_KEPT_HEAD_TOKENS:
            self._heads.popitem(last=False)
        return head

    def example(
        self,
        system_prompt: str,
        turns: Sequence[Turn],
        *,
        reply: str,
        has_end: bool = True,
        focus: str = "",
        focus_weight: float = 1.0,
    ) -> ReplyExample:
        """A reply to the last of `turns`; without `has_end` it may go on. Tokens of `focus`, a part of the reply,
        weigh `focus_weight`."""
        head_ids, tail_ids = self.prompt(system_prompt, turns)
        text = reply + self.end_of_reply if has_end else reply
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        start = reply.casefold().find(focus.casefold()) if focus else -1
        stop = start + len(focus)
        weights = [
            focus_weight if start >= 0 and first < stop and last > start else 1.0
            for first, last in encoding["offset_mapping"]
        ]
        return ReplyExample(self.read_head(head_ids), tail_ids, tuple(encoding["input_ids"]), tuple(weights))

    def reply_losses(self, examples: Sequence[ReplyExample], prefix: Tensor | None) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of every reply token, `(tokens,)`, and which example it belongs to, `(tokens,)`.

        `prefix: (b, k, d_lm)`, or `None` for none.
        """
        logits, targets, rows = self._reply_logits(examples, prefix)
        return functional.cross_entropy(logits, targets, reduction="none"), rows

    def fused_reply_losses(
        self, examples: Sequence[ReplyExample], fused: FusedBatch, *, rows: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """`reply_losses` behind the prefixes in `rows` of `fused`; of several prefixes the logits are mixed."""
        chosen = torch.tensor(rows, device=self.device)
        steering: list[Tensor | None] = [steered[chosen] for steered in fused.steering]
        steering = steering or [None] * len(fused.prefixes)
        if len(fused.prefixes) == 1:
            logits, targets, places = self._reply_logits(examples, fused.prefix[chosen], steering[0])
            return functional.cross_entropy(logits, targets, reduction="none"), places
        shares = fused.mixture[chosen]
        mixed: Tensor | None = None
        for j, prefix in enumerate(fused.prefixes):
            logits, targets, places = self._reply_logits(examples, prefix[chosen], steering[j])
            weighted = logits * shares[places, j, None]
            mixed = weighted if mixed is None else mixed + weighted
        assert mixed is not None  # noqa: S101 - a fused batch has a prefix
        return functional.cross_entropy(mixed, targets, reduction="none"), places

    def _reply_logits(
        self, examples: Sequence[ReplyExample], prefix: Tensor | None, steering: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of every reply token its logits `(tokens, vocabulary)`, its id, and which example it belongs to.
        `steering: (b, d_lm)`."""
        k = 0 if prefix is None else prefix.shape[1]
        states = self._run(examples, self._embed(examples, prefix))
        rows, places, targets = self._targets(examples, num_prefix_tokens=k)
        chosen = states[rows, places]
        if steering is not None:
            chosen = chosen + steering.to(chosen.dtype)[rows]
        logits: Tensor = self.model.get_output_embeddings()(chosen).float()
        return logits, targets, rows

    def _embed(self, examples: Sequence[ReplyExample], prefix: Tensor | None) -> Tensor:
        """Prefix, tail and reply: `(b, s, d_lm)`, padded at the end."""
        ids = [torch.tensor(one.tail_ids + one.reply_ids, device=self.device) for one in examples]
        words = functional.embedding(pad_sequence(ids, batch_first=True), self.embeddings)
        return words if prefix is None else torch.cat([prefix.to(words.dtype), words], dim=1)

    def _run(self, examples: Sequence[ReplyExample], inputs: Tensor) -> Tensor:
        """Hidden states behind the heads, `(b, s, d_lm)`. Heads are padded in front and masked there."""
        num_head = torch.tensor([one.head.num_tokens for one in examples], device=self.device)
        longest = int(num_head.max())
        cache = DynamicCache([(layer[0], layer[1]) for layer in self._pad_heads(examples, longest)])
        places = torch.arange(inputs.shape[1], device=self.device)
        is_head = torch.arange(longest, device=self.device)[None] >= longest - num_head[:, None]
        mask = torch.cat([is_head, is_head.new_ones(len(examples), len(places))], dim=1)
        states: Tensor = self.model.base_model(
            inputs_embeds=inputs,
            past_key_values=cache,
            attention_mask=mask.long(),
            position_ids=num_head[:, None] + places,
            use_cache=True,
        ).last_hidden_state
        return states

    def _pad_heads(self, examples: Sequence[ReplyExample], longest: int) -> list[Tensor]:
        padded = [functional.pad(one.head.keys_values, (0, 0, longest - one.head.num_tokens, 0)) for one in examples]
        return list(torch.stack(padded, dim=2))

    def _targets(self, examples: Sequence[ReplyExample], *, num_prefix_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Row, place and id of each reply token: a token is foretold at the place before it."""
        rows: list[int] = []
        places: list[int] = []
        targets: list[int] = []
        for row, one in enumerate(examples):
            first = num_prefix_tokens + len(one.tail_ids) - 1
            rows += [row] * len(one.reply_ids)
            places += range(first, first + len(one.reply_ids))
            targets += one.reply_ids
        return (
            torch.tensor(rows, device=self.device),
            torch.tensor(places, device=self.device),
            torch.tensor(targets, device=self.device),
        )
