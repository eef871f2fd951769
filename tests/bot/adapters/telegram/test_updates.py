"""The ledger of updates: nothing lost, nothing twice."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.telegram.updates import MAX_REPEATED, UpdateLedger


def updates(*numbers: int) -> list[dict[str, int]]:
    return [{"update_id": number} for number in numbers]


def arrive(ledger: UpdateLedger, batch: list[dict[str, int]]) -> list[dict[str, int]]:
    """The new ones of `batch`, where nothing was handed over since the server was asked."""
    return ledger.new_ones(batch, asked_offset=ledger.offset)


def test_only_what_was_handed_over_may_be_forgotten() -> None:
    ledger = UpdateLedger()
    assert ledger.offset == 0
    arrive(ledger, updates(7, 8, 9))
    assert ledger.offset == 7
    ledger.handed_over(8)
    assert (ledger.offset, ledger.has_waiting) == (7, True)
    ledger.handed_over(7)
    assert ledger.offset == 9
    ledger.handed_over(9)
    assert (ledger.offset, ledger.has_waiting) == (10, False)


def test_repeated_updates_are_not_new() -> None:
    ledger = UpdateLedger()
    arrive(ledger, updates(7, 8))
    assert arrive(ledger, updates(7, 8, 9)) == updates(9)


def test_what_was_handed_over_while_the_server_answered_is_not_new() -> None:
    ledger = UpdateLedger()
    arrive(ledger, updates(7, 8))
    asked_offset = ledger.offset
    ledger.handed_over(7)
    ledger.handed_over(8)
    assert ledger.new_ones(updates(7, 8, 9), asked_offset=asked_offset) == updates(9)
    assert ledger.offset == 9


def test_one_that_never_ends_does_not_hide_what_comes_after_it() -> None:
    ledger = UpdateLedger()
    arrive(ledger, updates(*range(1, MAX_REPEATED + 1)))
    for number in range(2, MAX_REPEATED + 1):
        ledger.handed_over(number)
    assert ledger.offset == 1
    arrive(ledger, updates(1, MAX_REPEATED + 1))
    assert ledger.offset == MAX_REPEATED + 1


def test_numbers_that_begin_anew_are_new() -> None:
    ledger = UpdateLedger()
    arrive(ledger, updates(700, 701))
    ledger.handed_over(700)
    ledger.handed_over(701)
    assert arrive(ledger, updates(5, 6)) == updates(5, 6)
    assert ledger.offset == 5
    ledger.handed_over(5)
    ledger.handed_over(6)
    assert ledger.offset == 7


@given(
    st.lists(st.tuples(st.sampled_from(["arrival", "question", "answer", "hand-over"]), st.integers(0, 9)), max_size=80)
)
def test_a_server_that_repeats_delivers_each_update_once(steps: list[tuple[str, int]]) -> None:
    ledger, queue, next_id, seen, waiting = UpdateLedger(), [], 1, [], []
    asked_offset: int | None = None
    for step, pick in [*steps, ("answer", 0), ("question", 0), ("answer", 0)]:
        if step == "arrival":
            queue.append(next_id)
            next_id += 1
        elif step == "hand-over" and waiting:
            ledger.handed_over(waiting.pop(pick % len(waiting)))
        elif step == "question" and asked_offset is None:
            asked_offset = ledger.offset
            assert not {number for number in queue if number < asked_offset} & set(waiting)
            queue = [number for number in queue if number >= asked_offset]
        elif step == "answer" and asked_offset is not None:
            fresh = [raw["update_id"] for raw in ledger.new_ones(updates(*queue), asked_offset=asked_offset)]
            asked_offset = None
            seen += fresh
            waiting += fresh
    assert seen == list(range(1, next_id))


async def test_whoever_polls_waits_no_longer_than_for_what_has_arrived() -> None:
    ledger = UpdateLedger()
    await ledger.wait_until_clear(60)
    ledger.new_ones([{"update_id": 1}, {"update_id": 2}], asked_offset=0)
    waiting = asyncio.create_task(ledger.wait_until_clear(60))
    await asyncio.sleep(0)
    ledger.handed_over(1)
    await asyncio.sleep(0)
    assert not waiting.done()
    ledger.handed_over(2)
    async with asyncio.timeout(5):
        await waiting
    ledger.new_ones([{"update_id": 3}], asked_offset=3)
    await ledger.wait_until_clear(0.01)
    assert ledger.has_waiting
