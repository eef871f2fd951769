"""What is reused, and what must never be."""

import pytest
import torch
from transformers import DynamicCache

from engine.generation.prefix_cache import PrefixCache

KEY = tuple(range(100, 140))


def filled(key: tuple[object, ...], *, width: int = 4) -> DynamicCache:
    """A cache whose keys tell the positions they belong to."""
    cache = DynamicCache()
    for layer in range(2):
        states = torch.tensor([float(hash(one) % 1000) for one in key]).view(1, 1, -1, 1).expand(-1, -1, -1, width)
        cache.update(states.clone(), -states, layer)
    return cache


def entry_bytes(num_tokens: int) -> int:
    return num_tokens * 4 * 4 * 2 * 2


def test_the_longest_common_beginning_is_reused() -> None:
    prefixes = PrefixCache(max_bytes=1 << 20)
    prefixes.keep(filled(KEY[:20]), KEY[:20])
    prefixes.keep(filled((*KEY[:30], 7, 8)), (*KEY[:30], 7, 8))
    cache = DynamicCache()
    assert prefixes.fill(cache, KEY) == 30
    assert cache.get_seq_length() == 30
    assert cache.layers[1].keys[0, 0, :, 0].tolist() == list(range(100, 130))


def test_one_position_is_always_left_to_compute() -> None:
    prefixes = PrefixCache(max_bytes=1 << 20)
    prefixes.keep(filled(KEY), KEY)
    assert prefixes.fill(DynamicCache(), KEY) == len(KEY) - 1


def test_a_short_common_beginning_is_not_worth_it() -> None:
    prefixes = PrefixCache(max_bytes=1 << 20)
    prefixes.keep(filled(KEY), KEY)
    assert prefixes.fill(DynamicCache(), (*KEY[:10], *range(40))) == 0


def test_what_is_filled_is_a_copy() -> None:
    prefixes = PrefixCache(max_bytes=1 << 20)
    prefixes.keep(filled(KEY), KEY)
    first, second = DynamicCache(), DynamicCache()
    prefixes.fill(first, KEY)
    first.layers[0].keys.zero_()
    prefixes.fill(second, KEY)
    assert second.layers[0].keys[0, 0, 3, 0] == 103


def test_a_longer_entry_replaces_what_it_begins_with() -> None:
    prefixes = PrefixCache(max_bytes=1 << 20)
    prefixes.keep(filled(KEY[:20]), KEY[:20])
    prefixes.keep(filled(KEY), KEY)
    assert len(prefixes) == 1
    assert prefixes.num_bytes == entry_bytes(len(KEY))


def test_the_least_recently_used_leaves_first() -> None:
    prefixes = PrefixCache(max_bytes=entry_bytes(2 * 20))
    keys = [tuple(range(start, start + 20)) for start in (0, 1000, 2000)]
    for key in keys[:2]:
        prefixes.keep(filled(key), key)
    prefixes.fill(DynamicCache(), keys[0])
    prefixes.keep(filled(keys[2]), keys[2])
    assert [prefixes.fill(DynamicCache(), key) for key in keys] == [19, 0, 19]
    assert prefixes.num_bytes <= entry_bytes(40)


@pytest.mark.parametrize("size", [10, 100])
def test_what_is_too_short_or_too_large_is_not_kept(size: int) -> None:
    prefixes = PrefixCache(max_bytes=entry_bytes(50))
    key = tuple(range(size))
    prefixes.keep(filled(key), key)
    assert len(prefixes) == 0


def test_fused_positions_differ_by_what_they_were_made_from() -> None:
    prefixes = PrefixCache(max_bytes=1 << 20)
    red = (*range(20), (("persona", "look", ("red",)), 0), 50, 51)
    blue = (*range(20), (("persona", "look", ("blue",)), 0), 50, 51)
    prefixes.keep(filled(red), red)
    assert prefixes.fill(DynamicCache(), blue) == 20
