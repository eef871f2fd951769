"""KV of earlier prompts, for new ones that begin alike: a persona's prompt, or the same conversation one turn later.

Owns the comparison and the memory bound. What is compared is not a hash but the content itself: token ids, and for a
fused position the persona's digest, the words and the pictures' digests that it was made from. Two users' prompts share
a position only if everything up to it is equal.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache

Key = tuple[Hashable, ...]
Layers = tuple[tuple[Tensor, Tensor], ...]

# A shorter common beginning is the chat template's own, and computes faster than it is found.
MIN_TOKENS = 16


class PrefixCache:
    """Least recently used entries leave first. Entries share tensors with the generations that made them; nobody
    writes into them, since a cache grows by concatenation."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, Layers] = OrderedDict()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Memory that the entries hold."""
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def fill(self, cache: DynamicCache, key: Key) -> int:
        """Put the longest known beginning of `key` into the empty `cache`, and give its length. One position at least
        is left to compute, since its logits are needed."""
        best = max(self._entries, key=lambda known: _num_common(known, key), default=())
        num_common = min(_num_common(best, key), len(key) - 1)
        if num_common < MIN_TOKENS:
            return 0
        self._entries.move_to_end(best)
        for index, (keys, values) in enumerate(self._entries[best]):
            cache.update(keys[..., :num_common, :], values[..., :num_common, :], index)
        return num_common

    def keep(self, cache: DynamicCache, key: Key) -> None:
        """Remember `cache`, whose positions are `key`. Entries that it begins with are not needed any more."""
        layers = tuple(_tensors(layer) for layer in cache.layers)
        num_bytes = _num_bytes(layers)
        if num_bytes > self._max_bytes or len(key) < MIN_TOKENS:
            return
        for known in [known for known in self._entries if _num_common(known, key) == len(known)]:
            self._drop(known)
        while self._num_bytes + num_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = layers
        self._num_bytes += num_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._num_bytes = 0

    def _drop(self, key: Key) -> None:
        self._num_bytes -= _num_bytes(self._entries.pop(key))


def _num_common(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """How many first elements are equal."""
    for index, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return index
    return min(len(a), len(b))


def _tensors(layer: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - the library's layers share no typed base
    return layer.keys, layer.values


def _num_bytes(layers: Layers) -> int:
    return sum(tensor.untyped_storage().nbytes() for layer in layers for tensor in layer)
