"""Packs the spans of a step into one call of the transformers model, over a KV cache in blocks. On any device.

Owns the blocks' tensors and the attention over them. Shapes: `t` packed positions, `s` sequences, `h` heads, `h_kv` key
and value heads, `d` head width, `c` positions of context.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.decoder.language_model import LanguageModel
from engine.generation.blocks import Lane
from engine.runtime.graphs import DecodeGraphs, DecodeInputs, is_decode_step, padded_inputs
from engine.runtime.paging import attention_layers, paged_attention, require_fixed_positions
from engine.runtime.types import Span

BLOCK_SIZE = 32


@dataclass(frozen=True, slots=True)
class KVShape:
    """One layer's heads and their widths."""

    num_layers: int
    num_heads: int
    head_dim: int

    @classmethod
    def of(cls, model: Any) -> "KVShape":  # noqa: ANN401 - whatever transformers has built
        """Raises `Unsupported` for models whose layers do not all attend over keys and values of one shape."""
        config = model.config.get_text_config(decoder=True)
        num_heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
        return cls(attention_layers(model), getattr(config, "num_key_value_heads", None) or num_heads, head_dim)

    def block_bytes(self, itemsize: int) -> int:
        """Memory of one block, all layers together."""
        return 2 * self.num_layers * self.num_heads * self.head_dim * BLOCK_SIZE * itemsize


@dataclass(frozen=True, slots=True)
class _Group:
    """Spans of equal length, computed together. `rows: (s, n)` are their places among the packed positions, `context:
    (s, c)` the places of what they may look at in the cache, `distances: (s, 1, n, c)` how far back that is, and `mask`
    whether it is not ahead."""

    rows: Tensor
    context: Tensor
    mask: Tensor
    distances: Tensor


class PagedRuntime:
    """A `Runtime` of the language model's own modules."""

    name = "torch"
    is_paged = True
    block_size = BLOCK_SIZE

    def __init__(self, language_model: LanguageModel, *, num_blocks: int) -> None:
        """Raises `Unsupported` where the model cannot be packed."""
        self._language_model = language_model
        self.num_blocks = num_blocks
        require_fixed_positions(language_model.model, language_model.max_context_tokens)
        shape = KVShape.of(language_model.model)
        # One block more than anybody has: rows that only pad a step write there.
        size = (shape.num_layers, (num_blocks + 1) * BLOCK_SIZE, shape.num_heads, shape.head_dim)
        self._keys = torch.zeros(size, dtype=language_model.dtype, device=language_model.device)
        self._values = torch.zeros_like(self._keys)
        self._graphs: DecodeGraphs | None = None
        if language_model.device.type == "cuda":
            self.use_graphs()

    def use_graphs(self) -> None:
        """Replay decode steps where the device can; elsewhere, only pad them alike."""
        self._graphs = DecodeGraphs(self._decode, self._language_model.device)

    @torch.inference_mode()
    def run(self, spans: Sequence[Span]) -> Tensor:
        """See `Runtime`."""
        if self._graphs is not None and is_decode_step(spans):
            return self._run_recorded(self._graphs, spans)
        model = self._language_model
        call = _Call.of(self._keys, self._values, spans)
        with paged_attention(model.model, call):
            return model.read_packed(
                torch.cat([span.embeddings for span in spans]),
                packed_positions(spans).to(model.device),
                call.last_rows,
                steering=packed_steering(spans, width=model.hidden_size),
            )

    def copy_block(self, source: int, target: int) -> None:
        """See `Runtime`."""
        for cache in (self._keys, self._values):
            blocks = cache.view(len(cache), -1, BLOCK_SIZE, *cache.shape[2:])
            blocks[:, target] = blocks[:, source]

    def release(self, lane: Lane) -> None:
        """Blocks stay as they are until somebody else writes into them."""

    def _run_recorded(self, graphs: DecodeGraphs, spans: Sequence[Span]) -> Tensor:
        places = [_places(span) for span in spans]
        scratch = self.num_blocks * BLOCK_SIZE
        width = self._language_model.hidden_size
        inputs = padded_inputs(spans, places, packed_positions(spans), scratch=scratch, width=width)
        return graphs.run(inputs)[: len(spans)]

    def _decode(self, inputs: DecodeInputs) -> Tensor:
        """One token a row, nothing but the device's own work: it may be recorded."""
        rows = torch.arange(len(inputs.places), device=self._language_model.device)
        distances = inputs.distances[:, None, None].to(rows.device)
        group = _Group(rows[:, None], inputs.context.to(rows.device), distances >= 0, distances)
        call = _Call(self._keys, self._values, inputs.places.to(rows.device), rows, [group])
        with paged_attention(self._language_model.model, call):
            return self._language_model.read_packed(
                inputs.embeddings, inputs.positions.to(rows.device), rows, steering=inputs.steering
            )


class _Call:
    """One call's `Pager`: where its positions are written, and what each may look at."""

    is_batch = False

    def __init__(
        self, keys: Tensor, values: Tensor, written: Tensor, last_rows: Tensor, groups: Sequence[_Group]
    ) -> None:
        self._keys, self._values = keys, values
        self._written = written
        self._groups = groups
        self.last_rows = last_rows

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, spans: Sequence[Span]) -> "_Call":
        """The call that computes `spans`."""
        groups: dict[int, list[tuple[int, Span]]] = {}
        offset, wanted = 0, []
        for span in spans:
            groups.setdefault(span.num_tokens, []).append((offset, span))
            offset += span.num_tokens
            wanted += [offset - 1] if span.has_logits else []
        written = torch.cat([_places(span)[span.start :] for span in spans]).to(keys.device)
        last_rows = torch.tensor(wanted, dtype=torch.long, device=keys.device)
        return cls(keys, values, written, last_rows, [_group(members, keys.device) for members in groups.values()])

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scaling: float, window: int | None
    ) -> Tensor:
        """See `Pager`."""
        keys, values = self._keys[layer], self._values[layer]
        keys[self._written], values[self._written] = key, value
        attended = torch.empty_like(query)
        for group in self._groups:
            mask = group.mask if window is None else group.mask & (group.distances < window)
            attended[group.rows] = functional.scaled_dot_product_attention(
                query[group.rows].transpose(1, 2),
                keys[group.context].transpose(1, 2),
                values[group.context].transpose(1, 2),
                attn_mask=mask,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            ).transpose(1, 2)
        return attended


def packed_positions(spans: Sequence[Span]) -> Tensor:
    """Where each packed position is, `(1, t)`, or `(3, 1, t)` where a model tells time, height and width apart."""
    told = [
        span.positions if span.positions is not None else torch.arange(span.start, span.start + span.num_tokens)
        for span in spans
    ]
    axes = max((one.shape[:-1] for one in told), key=len)
    return torch.cat([one.expand(*axes, -1) for one in told], dim=-1).unsqueeze(-2)


def packed_steering(spans: Sequence[Span], *, width: int) -> Tensor | None:
    """What is added to the states whose logits are wanted, `(s, d_lm)` in float32; `None` where nothing is."""
    wanted = [span.steering for span in spans if span.has_logits]
    if all(steering is None for steering in wanted):
        return None
    return torch.stack([torch.zeros(width) if one is None else one.float().cpu() for one in wanted])


def _places(span: Span) -> Tensor:
    """Where the lane's positions up to the span's end lie in the cache."""
    num_positions = span.start + span.num_tokens
    blocks = torch.tensor(span.lane.blocks[: -(-num_positions // BLOCK_SIZE)])
    return (blocks[:, None] * BLOCK_SIZE + torch.arange(BLOCK_SIZE)).flatten()[:num_positions]


def _group(members: Sequence[tuple[int, Span]], device: torch.device) -> _Group:
    """Spans of one length, padded to the longest context of them."""
    num_tokens = members[0][1].num_tokens
    places = [_places(span) for _, span in members]
    longest = max(map(len, places))
    # What pads is masked; it points at a place of the lane's own, so that nobody else's is ever read.
    context = torch.stack([functional.pad(one, (0, longest - len(one)), value=int(one[0])) for one in places])
    steps = torch.arange(num_tokens)
    rows = torch.tensor([offset for offset, _ in members])[:, None] + steps
    positions = torch.tensor([span.start for _, span in members])[:, None] + steps
    distances = positions[:, None, :, None] - torch.arange(longest)
    return _Group(rows.to(device), context.to(device), (distances >= 0).to(device), distances.to(device))
