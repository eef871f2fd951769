"""Which block of the KV cache holds what, for whom, and for how long. Touches no tensor.

Owns the places: free blocks, blocks that running sequences hold, and blocks that are only remembered, for prompts that
begin alike. A block holds `block_size` positions, and is found again by what stands at them *and* by what stands at all
positions before them. What is compared is not a hash but the content itself: token ids, and at a fused position the
persona's digest, the words and the pictures' digests that it was made from. Two people's prompts share a block only if
everything up to its end is equal.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice

Keys = tuple[Hashable, ...]

# So many of the blocks that continue a known beginning are looked through for one that begins alike.
MAX_COMPARED = 32
# To copy a block takes as long as to compute some positions: fewer are computed again.
MIN_PARTIAL = 12


@dataclass(eq=False, slots=True)
class _Block:
    """A block that something refers to. `keys` is what stands at its positions; `parent` holds those before."""

    number: int
    parent: "_Block | None"
    keys: Keys
    num_users: int = 0
    children: "dict[Keys, _Block]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a prompt: whole blocks, and another that agrees in its first `num_partial` positions.

    The whole ones are held for whoever asked; `partial` has to be copied before anything else is asked of the pool.
    """

    blocks: tuple[int, ...]
    num_positions: int
    partial: int | None = None
    num_partial: int = 0


@dataclass(eq=False, slots=True)
class Lane:
    """The places of one sequence's KV: position `i` lies in `blocks[i // block_size]`.

    `keys` says what stands at each position, the prompt's first; those below `num_computed` are in the cache.
    """

    keys: list[Hashable]
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0
    held: list[_Block] = field(default_factory=list)


class BlockPool:
    """All blocks of one KV cache. Of those that are only remembered, the least recently used leave first, the ends of
    conversations before their beginnings."""

    def __init__(self, *, num_blocks: int, block_size: int, remembers: bool = True) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self._remembers = remembers
        self._free = list(range(num_blocks - 1, -1, -1))
        self._roots: dict[Keys, _Block] = {}
        self._idle: OrderedDict[_Block, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        """Blocks that can be had, those that are only remembered included."""
        return len(self._free) + len(self._idle)

    @property
    def num_remembered(self) -> int:
        """Blocks that nobody uses now, kept for prompts that begin alike."""
        return len(self._idle)

    def num_blocks_for(self, num_positions: int) -> int:
        """How many blocks so many positions take."""
        return -(-num_positions // self.block_size)

    def open(self, lane: Lane, *, num_positions: int, is_fresh: bool = False) -> Found | None:
        """Give `lane` room for `num_positions`, with what is known of its keys, or `None` where there is no room now.

        One position at least is left to compute, since its logits are needed; with `is_fresh`, all of them. Where
        something is found in part, its block has to be copied to `lane.blocks[len(found.blocks)]`.
        """
        found, known = self._find(() if is_fresh else lane.keys[: len(lane.keys) - 1])
        for block in known:
            self._hold(block)
        num_needed = self.num_blocks_for(num_positions) - len(known)
        # The block to copy from must not be given away before it is copied, unless nothing else is left.
        spared = found.partial if num_needed < self.num_free else None
        if num_needed > self.num_free:
            for block in reversed(known):
                self._release(block)
            return None
        lane.held = known
        lane.blocks = [block.number for block in known] + [self._take(spared) for _ in range(num_needed)]
        if spared is None:
            found = Found(found.blocks, len(known) * self.block_size)
        lane.num_computed = found.num_positions
        return found

    def num_known(self, lane: Lane) -> int:
        """How many of the first positions of `lane` would be found now."""
        return self._find(lane.keys[: len(lane.keys) - 1])[0].num_positions

    def remember(self, lane: Lane, *, is_ended: bool = False) -> None:
        """Make what `lane` has computed known to others: its full blocks, and at its end the rest as well."""
        if not self._remembers:
            return
        size = self.block_size
        while (start := len(lane.held) * size) < lane.num_computed:
            keys = tuple(lane.keys[start : min(start + size, lane.num_computed)])
            if len(keys) < size and not is_ended:
                return
            parent = lane.held[-1] if lane.held else None
            siblings = self._children(parent)
            known = siblings.get(keys)
            if known is not None:
                # Somebody else computed the same: theirs is the one to be found, ours goes with the lane.
                lane.held.append(known)
            else:
                block = _Block(lane.blocks[len(lane.held)], parent, keys)
                siblings[keys] = block
                lane.held.append(block)
            self._hold(lane.held[-1])

    def close(self, lane: Lane) -> None:
        """Take the room of `lane` back; what it made known stays until the room is needed."""
        numbers = {block.number for block in lane.held}
        self._free += [number for number in lane.blocks if number not in numbers]
        for block in reversed(lane.held):
            self._release(block)
        lane.blocks, lane.held, lane.num_computed = [], [], 0

    def forget(self) -> None:
        """Give up everything that is only remembered."""
        while self._idle:
            self._free.append(self._evict())

    def _find(self, keys: Sequence[Hashable]) -> tuple[Found, list[_Block]]:
        size = self.block_size
        known: list[_Block] = []
        siblings = self._roots
        for start in range(0, len(keys) - size + 1, size):
            block = siblings.get(tuple(keys[start : start + size]))
            if block is None:
                break
            known.append(block)
            siblings = block.children
        start = len(known) * size
        partial, num_partial = None, 0
        wanted = keys[start : start + size]
        for other in islice(reversed(siblings.values()), MAX_COMPARED):
            if (num_common := _num_common(other.keys, wanted)) >= max(num_partial + 1, MIN_PARTIAL):
                partial, num_partial = other.number, num_common
        return Found(tuple(block.number for block in known), start + num_partial, partial, num_partial), known

    def _children(self, parent: _Block | None) -> dict[Keys, _Block]:
        return self._roots if parent is None else parent.children

    def _hold(self, block: _Block) -> None:
        block.num_users += 1
        self._idle.pop(block, None)

    def _release(self, block: _Block) -> None:
        block.num_users -= 1
        if block.num_users == 0:
            self._idle[block] = None

    def _take(self, spared: int | None) -> int:
        return self._free.pop() if self._free else self._evict(spared)

    def _evict(self, spared: int | None = None) -> int:
        """Forget the block that was not used for longest, of those that no remembered one goes on from."""
        block = next(block for block in self._idle if not block.children and block.number != spared)
        del self._idle[block]
        del self._children(block.parent)[block.keys]
        return block.number


def _num_common(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """How many first elements are equal."""
    for index, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return index
    return min(len(a), len(b))
