"""Who holds which block of the cache, and that nobody is ever given what was computed for somebody else."""

from collections.abc import Hashable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.generation import blocks
from engine.generation.blocks import MAX_COMPARED, BlockPool, Found, Lane

SIZE = 4


@pytest.fixture(autouse=True)
def _every_position_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks as small as these would never be found in part."""
    monkeypatch.setattr(blocks, "MIN_PARTIAL", 1)


def a_pool(num_blocks: int = 8, *, remembers: bool = True) -> BlockPool:
    return BlockPool(num_blocks=num_blocks, block_size=SIZE, remembers=remembers)


def opened(pool: BlockPool, keys: str, num_new: int = 2) -> tuple[Lane, Found]:
    """A lane with a prompt of these letters, and room for some more."""
    lane = Lane(list(keys))
    found = pool.open(lane, num_positions=len(keys) + num_new)
    assert found is not None
    return lane, found


def ended(pool: BlockPool, keys: str, *, num_new: int = 0) -> Lane:
    """A lane that has computed all its keys, and has ended."""
    lane, _ = opened(pool, keys, num_new)
    lane.num_computed = len(keys)
    pool.remember(lane, is_ended=True)
    pool.close(lane)
    return lane


def num_known(pool: BlockPool, keys: str) -> int:
    """How much of these keys is known now. Opening a lane to see it would need room, and change what is known."""
    return pool._find(list(keys))[0].num_positions


def test_a_lane_gets_room_for_its_prompt_and_its_reply() -> None:
    pool = a_pool()
    lane, found = opened(pool, "abcde", 4)
    assert len(lane.blocks) == len(set(lane.blocks)) == 3
    assert found == Found((), 0)
    assert lane.num_computed == 0
    assert pool.num_free == 5
    pool.close(lane)
    assert pool.num_free == 8
    assert (lane.blocks, lane.held, lane.num_computed) == ([], [], 0)


def test_closing_twice_gives_back_once() -> None:
    pool = a_pool()
    lane, _ = opened(pool, "abcde")
    pool.close(lane)
    pool.close(lane)
    assert pool.num_free == 8
    lanes = [opened(pool, "abcd", 0)[0] for _ in range(8)]
    assert len({lane.blocks[0] for lane in lanes}) == 8


def test_what_ended_is_found_again_but_for_the_last_position() -> None:
    pool = a_pool()
    first = ended(pool, "abcdefgh")
    lane, found = opened(pool, "abcdefgh")
    assert found.num_positions == lane.num_computed == 7
    assert len(found.blocks) == 1
    assert found.partial is not None
    assert lane.blocks[0] == found.blocks[0]
    assert found.partial not in lane.blocks
    assert first.blocks == []


def test_with_is_fresh_nothing_is_found() -> None:
    pool = a_pool()
    ended(pool, "abcdefgh")
    lane = Lane(list("abcdefgh"))
    assert pool.open(lane, num_positions=8, is_fresh=True) == Found((), 0)
    assert lane.num_computed == 0


def test_a_running_lane_shares_its_full_blocks_only() -> None:
    pool = a_pool()
    running, _ = opened(pool, "abcdef", 4)
    assert num_known(pool, "abcdef") == 0
    running.num_computed = 6
    pool.remember(running)
    assert num_known(pool, "abcdef") == 4
    running.keys += ["g", "h"]
    running.num_computed = 8
    pool.remember(running)
    assert num_known(pool, "abcdefgh") == 8


def test_the_same_block_behind_another_beginning_is_another() -> None:
    pool = a_pool()
    ended(pool, "aaaacccc")
    assert num_known(pool, "bbbbcccc") == 0
    assert num_known(pool, "cccc") == 0
    assert num_known(pool, "aaaacccc") == 8


def test_a_block_that_begins_alike_is_found_in_part() -> None:
    pool = a_pool()
    ended(pool, "aaaabbcc")
    ended(pool, "aaaabxyz")
    lane, found = opened(pool, "aaaabbzz")
    assert (found.num_positions, found.num_partial) == (6, 2)
    assert found.partial is not None
    assert found.partial not in lane.blocks


def test_a_few_positions_are_not_worth_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MIN_PARTIAL", 3)
    pool = a_pool()
    ended(pool, "aaaabbcc")
    _, found = opened(pool, "aaaabbzz")
    assert (found.num_positions, found.partial) == (4, None)
    assert num_known(pool, "aaaabbcz") == 7


def test_an_unfinished_end_is_found_in_part() -> None:
    pool = a_pool()
    ended(pool, "aaaabb")
    _, found = opened(pool, "aaaabbcc")
    assert (found.num_positions, found.num_partial) == (6, 2)


def test_a_long_list_of_beginnings_is_not_looked_through_whole() -> None:
    pool = a_pool(2 * MAX_COMPARED)
    beginnings = [f"{chr(200 + number)}b" for number in range(MAX_COMPARED + 1)]
    for keys in beginnings:
        ended(pool, keys)
    assert num_known(pool, beginnings[-1]) == 2
    assert num_known(pool, beginnings[0]) == 0


def test_what_two_computed_at_once_is_kept_once() -> None:
    pool = a_pool()
    lanes = [opened(pool, "abcdefgh", 0)[0] for _ in range(2)]
    for lane in lanes:
        lane.num_computed = 8
        pool.remember(lane, is_ended=True)
    for lane in lanes:
        pool.close(lane)
    assert pool.num_free == 8
    assert pool.num_remembered == 2
    assert num_known(pool, "abcdefgh") == 8


def test_where_there_is_no_room_nothing_is_held() -> None:
    pool = a_pool(4)
    ended(pool, "aaaabbbb")
    running, _ = opened(pool, "cccc", 4)
    lane = Lane(list("aaaabbbbdddd"))
    assert pool.open(lane, num_positions=13) is None
    assert lane.blocks == []
    assert lane.held == []
    assert pool.num_free == 2
    assert pool.num_remembered == 2
    assert pool.open(lane, num_positions=5, is_fresh=True) is not None
    pool.close(lane)
    pool.close(running)
    assert pool.num_free == 4


def test_ends_leave_before_beginnings_and_the_least_recent_first() -> None:
    pool = a_pool(6)
    ended(pool, "aaaabbbb")
    ended(pool, "aaaacccc")
    ended(pool, "ddddeeee")
    assert pool.num_remembered == 5
    opened(pool, "zzzzyyyy", 0)
    # One was free; the other was the end of the oldest conversation.
    assert num_known(pool, "aaaabbbb") == 4
    assert num_known(pool, "aaaacccc") == 8
    assert num_known(pool, "ddddeeee") == 8


def test_what_was_used_again_stays_longer() -> None:
    pool = a_pool(4)
    ended(pool, "aaaabbbb")
    ended(pool, "ccccdddd")
    ended(pool, "aaaabbbb")
    opened(pool, "zzzz", 0)
    assert num_known(pool, "aaaabbbb") == 8
    assert num_known(pool, "ccccdddd") == 4


def test_what_is_held_never_leaves() -> None:
    pool = a_pool(4)
    ended(pool, "aaaabbbb")
    lane, found = opened(pool, "aaaabbbbc", 0)
    other, _ = opened(pool, "z", 0)
    assert found.num_positions == 8
    assert pool.num_free == 0
    assert pool.open(Lane(["y"]), num_positions=1) is None
    pool.close(other)
    pool.close(lane)
    assert pool.num_free == 4


def test_a_block_to_copy_from_is_not_given_away_meanwhile() -> None:
    pool = a_pool(3)
    ended(pool, "abcd")
    _, found = opened(pool, "abxy", 2)
    assert found.num_positions == 2
    # With no other block left, there is nothing to copy from.
    pool = a_pool(2)
    ended(pool, "abcd")
    lane, found = opened(pool, "abxy", 2)
    assert (found.num_positions, found.partial, lane.num_computed) == (0, None, 0)
    assert len(set(lane.blocks)) == 2


def test_forgetting_gives_up_what_nobody_holds() -> None:
    pool = a_pool()
    ended(pool, "aaaabbbb")
    running, _ = opened(pool, "aaaacccc", 0)
    pool.forget()
    assert pool.num_remembered == 0
    assert num_known(pool, "aaaabbbb") == 4
    pool.close(running)
    pool.forget()
    assert num_known(pool, "aaaabbbb") == 0
    assert pool.num_free == 8


def test_where_nothing_can_be_shared_nothing_is_remembered() -> None:
    pool = a_pool(remembers=False)
    ended(pool, "aaaabbbb")
    assert pool.num_remembered == 0
    assert num_known(pool, "aaaabbbb") == 0
    assert pool.num_free == 8


class Pool(RuleBasedStateMachine):
    """Any order of what a loop does, beside a cache that says what really stands at each position of each block.

    What stands there is everything from the beginning of the text to that position, as with keys and values.
    """

    @initialize(num_blocks=st.integers(1, 9), size=st.integers(1, 4))
    def begin(self, num_blocks: int, size: int) -> None:
        self.pool = BlockPool(num_blocks=num_blocks, block_size=size)
        self.cache: list[list[tuple[Hashable, ...] | None]] = [[None] * size for _ in range(num_blocks)]
        self.lanes: list[Lane] = []
        self.rooms: dict[int, int] = {}

    @rule(keys=st.text("ab", min_size=1, max_size=14), num_new=st.integers(0, 6), is_fresh=st.booleans())
    def open(self, keys: str, num_new: int, is_fresh: bool) -> None:
        lane, before = Lane(list(keys)), self.pool.num_free
        found = self.pool.open(lane, num_positions=len(keys) + num_new, is_fresh=is_fresh)
        if found is None:
            assert (lane.blocks, lane.held, self.pool.num_free) == ([], [], before)
            return
        assert lane.num_computed == found.num_positions < len(keys)
        assert not is_fresh or found.num_positions == 0
        if found.partial is not None:
            target = lane.blocks[len(found.blocks)]
            assert target != found.partial
            self.cache[target] = list(self.cache[found.partial])
        self.lanes.append(lane)
        self.rooms[id(lane)] = len(keys) + num_new

    @precondition(lambda self: self.lanes)
    @rule(data=st.data(), num_tokens=st.integers(1, 9))
    def compute(self, data: st.DataObject, num_tokens: int) -> None:
        """Read a part of the prompt, or a token."""
        lane = self._one(data)
        end = min(lane.num_computed + num_tokens, len(lane.keys))
        for position in range(lane.num_computed, end):
            block, offset = divmod(position, self.pool.block_size)
            self.cache[lane.blocks[block]][offset] = tuple(lane.keys[: position + 1])
        lane.num_computed = end

    @precondition(lambda self: self.lanes)
    @rule(data=st.data(), token=st.sampled_from("ab"))
    def choose(self, data: st.DataObject, token: str) -> None:
        """The next token, if all is read and there is room."""
        lane = self._one(data)
        self.pool.remember(lane)
        if lane.num_computed == len(lane.keys) < self.rooms[id(lane)]:
            lane.keys.append(token)

    @precondition(lambda self: self.lanes)
    @rule(data=st.data(), is_remembered=st.booleans())
    def end(self, data: st.DataObject, is_remembered: bool) -> None:
        """Well, or by a failure or a cancellation."""
        lane = self._one(data)
        if is_remembered:
            self.pool.remember(lane, is_ended=True)
        self.pool.close(lane)
        self.lanes = [one for one in self.lanes if one is not lane]

    @rule()
    def forget(self) -> None:
        self.pool.forget()
        assert self.pool.num_remembered == 0

    @invariant()
    def everybody_finds_what_they_computed(self) -> None:
        """Nobody's positions hold anything but what their own text has up to there: no leak, nothing overwritten."""
        for lane in self.lanes:
            for position in range(lane.num_computed):
                block, offset = divmod(position, self.pool.block_size)
                assert self.cache[lane.blocks[block]][offset] == tuple(lane.keys[: position + 1])

    @invariant()
    def nobody_writes_where_somebody_else_reads(self) -> None:
        for lane in self.lanes:
            written = lane.blocks[lane.num_computed // self.pool.block_size :]
            for other in self.lanes:
                if other is not lane:
                    assert not set(written) & set(other.blocks)

    @invariant()
    def counts_add_up(self) -> None:
        held = {number for lane in self.lanes for number in lane.blocks}
        held |= {block.number for lane in self.lanes for block in lane.held}
        assert self.pool.num_free == self.pool.num_blocks - len(held)
        assert all(len(set(lane.blocks)) == len(lane.blocks) for lane in self.lanes)

    def _one(self, data: st.DataObject) -> Lane:
        return self.lanes[data.draw(st.integers(0, len(self.lanes) - 1))]

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            for lane in self.lanes:
                self.pool.close(lane)
            assert self.pool.num_free == self.pool.num_blocks


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
