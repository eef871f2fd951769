"""Lets a transformers model attend over a KV cache in blocks, for several sequences packed into one row.

Owns the attention function that such models are given for the time of a call, and what it may be asked for. Does not
know who computes: a runtime says so by a `Pager`. Shapes: `t` packed positions, `h` heads, `h_kv` key and value heads,
`d` head width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface

from engine.runtime.types import Unsupported

ATTENTION = "commedia_paged"
# What models hand to attention functions beside the tensors, and a paged one may ignore: none of it changes a result
# outside training.
HARMLESS = frozenset({"dropout", "position_ids", "cache_position", "use_cache", "output_attentions", "is_causal"})

LENGTH_DEPENDENT_ROTARY = frozenset({"dynamic", "longrope"})


class Pager(Protocol):
    """Computes one layer's attention.

    `is_batch` says how the model is called: with the packed positions as one sequence, `(1, t, …)`, or as a batch of
    sequences of one position each, `(t, 1, …)`. The latter needs no data moved to bring heads to the front.
    """

    is_batch: bool

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scaling: float, window: int | None
    ) -> Tensor:
        """`query: (t, h, d)`, `key` and `value: (t, h_kv, d)` → `(t, h, d)`. `window` is how far back a position looks,
        itself included."""


_pager: ContextVar[Pager] = ContextVar("pager")


@contextmanager
def paged_attention(model: Any, pager: Pager) -> Iterator[None]:  # noqa: ANN401 - whatever transformers has built
    """For calls of `model` with packed positions: attention is the pager's."""
    configs = [config for config in _attention_configs(model) if config is not None]
    before = [config._attn_implementation for config in configs]
    token = _pager.set(pager)
    try:
        for config in configs:
            config._attn_implementation = ATTENTION
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
        _pager.reset(token)


def attention_layers(model: Any) -> int:  # noqa: ANN401
    """How many layers attend over a cache. Raises `Unsupported` where they are not counted as transformers does."""
    numbers = sorted({module.layer_idx for module in _attention_modules(model)})
    num_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    if numbers != list(range(num_layers)):
        raise Unsupported("not every layer attends over a cache of its own")
    return int(num_layers)


def require_fixed_positions(model: Any, num_positions: int) -> None:  # noqa: ANN401
    """Raises `Unsupported` where what a position is depends on how long its sequence is: packed, it would depend on how
    long the others are."""
    config = model.config.get_text_config(decoder=True)
    parameters = getattr(config, "rope_parameters", None) or {}
    for kind in (parameters, *(one for one in parameters.values() if isinstance(one, dict))):
        fixed_until = kind.get("original_max_position_embeddings") or config.max_position_embeddings
        if kind.get("rope_type") in LENGTH_DEPENDENT_ROTARY and num_positions > fixed_until:
            raise Unsupported(
                f"its rotary positions ({kind['rope_type']}) change with the length beyond {fixed_until}: "
                f"engine.max_context_tokens = {fixed_until} would avoid that"
            )


def _attention_modules(model: Any) -> list[Any]:  # noqa: ANN401
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    return [
        module
        for module in decoder.modules()
        if getattr(module, "layer_idx", None) is not None
        and hasattr(module, "config")
        and "Attention" in type(module).__name__
    ]


def _attention_configs(model: Any) -> list[Any]:  # noqa: ANN401
    """The configurations that choose the attention function, each once."""
    found: dict[int, Any] = {}
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    for module in (decoder, *_attention_modules(model)):
        found.setdefault(id(module.config), module.config)
    return list(found.values())


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """As transformers calls it: `query: (1, h, t, d)`, `key` and `value: (1, h_kv, t, d)` → `(1, t, h, d)`, or
    `(t, h, 1, d)` and `(t, h_kv, 1, d)` → `(t, 1, h, d)`."""
    unknown = {name for name, one in others.items() if one is not None and name not in HARMLESS}
    if unknown or attention_mask is not None:
        raise Unsupported(f"its attention asks for {', '.join(sorted(unknown)) or 'a mask'}")
    if not getattr(module, "is_causal", True):
        raise Unsupported("its attention looks ahead")
    layer: Any = module
    pager = _pager.get()
    states = (query, key, value)
    packed = (one.squeeze(2) for one in states) if pager.is_batch else (one[0].transpose(0, 1) for one in states)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    attended = pager.attend(layer.layer_idx, *packed, scaling=float(scale), window=sliding_window)
    return attended.unsqueeze(1 if pager.is_batch else 0), None


AttentionInterface.register(ATTENTION, _attend)
