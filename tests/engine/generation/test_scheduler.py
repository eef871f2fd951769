"""What a step computes: who is let in, who gets a token, who reads how much. No model, no tensor."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.generation.blocks import Lane
from engine.generation.scheduler import Scheduler, StepBudget, Work
from engine.generation.sequence import Sequence
from engine.types import Asker, FinishReason, ReplyChunk
from tests.engine.generation.requests import request

BUDGET = StepBudget(mixed=100, reading=400, alone=150)


def a_sequence(
    num_prompt_tokens: int = 10, *, num_computed: int = 0, num_lanes: int = 1, seed: int | None = None
) -> Sequence:
    """One whose prompt is so long."""
    sequence = Sequence(request(seed=seed), lambda _: None, time.monotonic())
    sequence.lanes = [Lane([0] * num_prompt_tokens, num_computed=num_computed) for _ in range(num_lanes)]
    return sequence


def answered(**settings: int) -> Sequence:
    """One whose prompt is read, and whose first token is chosen."""
    sequence = a_sequence(10, num_computed=9, **settings)
    sequence.num_new_tokens = 1
    return sequence


def scheduler_of(*running: Sequence, max_running: int = 16, budget: StepBudget = BUDGET) -> Scheduler:
    """A scheduler with these running."""
    scheduler = Scheduler(max_running=max_running, budget=budget)
    for sequence in running:
        scheduler.add(sequence)
        scheduler.admit(sequence, 0.0)
    return scheduler


def advance(works: list[Work]) -> None:
    """As if it had been computed."""
    for work in works:
        for lane in work.sequence.lanes:
            lane.num_computed += work.num_tokens
            if work.has_logits:
                lane.keys.append(0)
        if work.has_logits:
            work.sequence.num_new_tokens += 1


# --- who runs


def test_first_come_first_served_and_no_more_than_may_run() -> None:
    first, second, third = waiting = [a_sequence() for _ in range(3)]
    scheduler = scheduler_of(max_running=2)
    for sequence in waiting:
        scheduler.add(sequence)
    admitted = []
    while (sequence := scheduler.next(1.0)) is not None:
        scheduler.admit(sequence, 1.0)
        admitted.append(sequence)
    assert admitted == [first, second]
    scheduler.remove(first, 2.0)
    assert scheduler.next(2.0) is third
    assert scheduler.running == (second,)
    assert second.started_at == 1.0


def test_looking_who_is_next_lets_nobody_in() -> None:
    scheduler = scheduler_of()
    scheduler.add(waiting := a_sequence())
    assert scheduler.next(0.0) is scheduler.next(0.0) is waiting
    assert scheduler.running == ()


def test_who_is_next_is_the_fair_queues_business() -> None:
    """One person's second request waits behind another person's first."""
    scheduler = scheduler_of()
    requests = [a_sequence() for _ in range(3)]
    for sequence, user in zip(requests, ("ana", "ana", "ben"), strict=True):
        sequence.request = replace(sequence.request, asker=Asker(user, user))
        scheduler.add(sequence)
    order = []
    while (sequence := scheduler.next(0.0)) is not None:
        scheduler.admit(sequence, 0.0)
        order.append(sequence)
    assert order == [requests[0], requests[2], requests[1]]


def test_cancelled_ones_leave_from_both_places() -> None:
    first, second, third = waiting = [a_sequence() for _ in range(3)]
    scheduler = scheduler_of(first)
    for sequence in waiting[1:]:
        scheduler.add(sequence)
    first.is_cancelled = third.is_cancelled = True
    assert set(scheduler.remove_cancelled()) == {first, third}
    assert scheduler.running == ()
    assert scheduler.next(0.0) is second


def test_those_who_wait_too_long_leave() -> None:
    running, waiting, newer = (a_sequence() for _ in range(3))
    scheduler = Scheduler(max_running=1, max_wait_s=10.0, budget=BUDGET)
    for sequence, accepted_at in ((running, 0.0), (waiting, 5.0), (newer, 12.0)):
        sequence.accepted_at = accepted_at
        scheduler.add(sequence)
    scheduler.admit(running, 0.0)
    assert scheduler.remove_expired(15.0) == []
    assert scheduler.remove_expired(15.1) == [waiting]
    assert scheduler.running == (running,)
    assert list(scheduler.queue) == [newer]


def test_clearing_names_everybody() -> None:
    waiting = [a_sequence() for _ in range(3)]
    scheduler = scheduler_of(waiting[0])
    for sequence in waiting[1:]:
        scheduler.add(sequence)
    assert scheduler.has_work
    assert set(scheduler.clear()) == set(waiting)
    assert not scheduler.has_work


# --- what is computed


def test_a_prompt_is_read_in_chunks_the_last_of_which_has_logits() -> None:
    scheduler = scheduler_of(sequence := a_sequence(900))
    chunks = []
    while sequence.is_prefilling:
        (work,) = scheduler.schedule()
        chunks.append((work.num_tokens, work.has_logits))
        advance([work])
    assert chunks == [(400, False), (400, False), (100, True)]
    assert scheduler.schedule() == [Work(sequence, 1, has_logits=True)]


def test_what_is_known_of_a_prompt_is_not_read() -> None:
    scheduler = scheduler_of(sequence := a_sequence(900, num_computed=896))
    assert scheduler.schedule() == [Work(sequence, 4, has_logits=True)]


def test_beside_words_prompts_are_read_in_small_chunks() -> None:
    writing, reading = [answered() for _ in range(3)], a_sequence(900)
    works = scheduler_of(*writing, reading).schedule()
    assert works == [*(Work(one, 1, has_logits=True) for one in writing), Work(reading, 97, has_logits=False)]


def test_one_prompt_is_ready_before_the_next_is_begun() -> None:
    first, second, third = (a_sequence(250) for _ in range(3))
    works = scheduler_of(first, second, third).schedule()
    assert works == [Work(first, 250, has_logits=True), Work(second, 150, has_logits=False)]


def test_everybody_who_is_answered_gets_a_token_whatever_the_budget() -> None:
    writing = [answered() for _ in range(8)]
    works = scheduler_of(*writing, budget=StepBudget(mixed=3, reading=3, alone=3)).schedule()
    assert [work.sequence for work in works] == writing


def test_somebody_always_reads_on_however_many_write() -> None:
    writing, reading = [answered() for _ in range(8)], a_sequence(900)
    works = scheduler_of(*writing, reading, budget=StepBudget(mixed=8, reading=8, alone=8)).schedule()
    assert works[-1] == Work(reading, 1, has_logits=False)


def test_lanes_count_each() -> None:
    mixed, other = a_sequence(150, num_lanes=2), a_sequence(250)
    works = scheduler_of(mixed, other).schedule()
    assert works == [Work(mixed, 150, has_logits=True), Work(other, 100, has_logits=False)]


@pytest.mark.parametrize("company", [[], [10], [399], [10, 20, 30, 300]])
@pytest.mark.parametrize("num_writing", [0, 1, 40, 200])
def test_whoever_is_alone_reads_the_same_chunks_in_any_company(company: list[int], num_writing: int) -> None:
    seeded = a_sequence(400, seed=1)
    others = [a_sequence(length) for length in company]
    scheduler = scheduler_of(*others, seeded, *(answered() for _ in range(num_writing)), max_running=1000)
    chunks = []
    for _ in range(500):
        works = scheduler.schedule()
        chunks += [work.num_tokens for work in works if work.sequence is seeded and seeded.is_prefilling]
        advance(works)
        if not seeded.is_prefilling:
            break
    assert chunks == [150, 150, 100]


@settings(deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 600), st.integers(1, 2), st.booleans()), min_size=1, max_size=6),
    mixed=st.integers(1, 64),
    reading=st.integers(1, 300),
)
def test_everybody_gets_ready_and_nobody_who_writes_ever_stands_still(
    lengths: list[tuple[int, int, bool]], mixed: int, reading: int
) -> None:
    sequences = [
        a_sequence(length, num_lanes=num_lanes, seed=1 if is_alone else None) for length, num_lanes, is_alone in lengths
    ]
    scheduler = scheduler_of(*sequences, budget=StepBudget(mixed=mixed, reading=reading, alone=50))
    num_unread = sum(length for length, _, _ in lengths)
    for _ in range(num_unread + 1):
        writing = [one for one in sequences if not one.is_prefilling]
        works = scheduler.schedule()
        by_sequence = {work.sequence: work for work in works}
        assert len(by_sequence) == len(works)
        assert all(by_sequence[one] == Work(one, 1, has_logits=True) for one in writing)
        budget = mixed if writing else reading
        in_parts = [work for work in works if work.sequence.is_prefilling]
        # Only the last chunk may be larger than what is left: one lane's share of it, or of what is read alone.
        before_last = sum(work.num_tokens * len(work.sequence.lanes) for work in in_parts[:-1])
        assert before_last < max(budget - len(writing), 1)
        assert all(0 < work.num_tokens <= work.sequence.num_unread for work in works)
        assert all(work.has_logits == (work.num_tokens == work.sequence.num_unread) for work in works)
        advance(works)
    assert all(not one.is_prefilling for one in sequences)


# --- what it learns of time, and what it knows of replies


def test_mixed_steps_become_as_large_as_time_allows() -> None:
    budget = StepBudget(mixed=100, reading=400, max_mixed_s=0.1)
    writing, reading = answered(), a_sequence(100_000)
    scheduler = scheduler_of(writing, reading, budget=budget)

    def num_read(seconds_a_token: float) -> int:
        for _ in range(60):
            works = scheduler.schedule()
            scheduler.note_step(works, seconds_a_token * sum(work.num_tokens for work in works))
        return scheduler.schedule()[-1].num_tokens

    assert num_read(0.0005) == pytest.approx(200, abs=8)
    assert num_read(0.00001) == 399  # never beyond what a step of reading takes
    assert num_read(0.001) == pytest.approx(100, abs=40)
    assert num_read(1.0) < 64  # and never so little that nobody gets ready


def test_however_many_are_answered_somebody_reads() -> None:
    budget = StepBudget(mixed=100, reading=400, max_mixed_s=0.1)
    everybody = [answered() for _ in range(50)]
    scheduler = scheduler_of(*everybody, a_sequence(100_000), budget=budget, max_running=64)
    for _ in range(20):
        scheduler.note_step([Work(everybody[0], 100, has_logits=True)], 60.0)
    assert scheduler.schedule()[-1].num_tokens >= 32


def test_small_steps_tell_nothing() -> None:
    budget = StepBudget(mixed=100, reading=400, max_mixed_s=0.1)
    scheduler = scheduler_of(answered(), a_sequence(100_000), budget=budget)
    scheduler.note_step([Work(answered(), 1, has_logits=True)], 5.0)
    assert scheduler.schedule()[-1].num_tokens == 99


def test_the_last_chunk_carries_what_the_reply_cost() -> None:
    seen: list[object] = []
    sequence = Sequence(
        request(), seen.append, 10.0, num_prompt_tokens=5, num_cached_tokens=3, num_new_tokens=7, num_dropped_turns=2
    )
    sequence.started_at, sequence.first_token_at = 10.5, 11.5
    sequence.finish(FinishReason.STOP, "end", now=13.0)
    (chunk,) = seen
    assert isinstance(chunk, ReplyChunk)
    assert (chunk.text, chunk.finish_reason) == ("end", FinishReason.STOP)
    stats = chunk.stats
    assert stats is not None
    assert (stats.queue_s, stats.time_to_first_token_s, stats.duration_s) == (0.5, 1.5, 3.0)
    assert (stats.num_prompt_tokens, stats.num_cached_tokens, stats.num_new_tokens) == (5, 3, 7)
    assert stats.num_dropped_turns == 2


def test_who_never_began_has_waited_until_the_end() -> None:
    sequence = Sequence(request(), lambda _: None, 10.0)
    stats = sequence.stats(12.0)
    assert (stats.queue_s, stats.time_to_first_token_s, stats.duration_s) == (2.0, 2.0, 2.0)


def test_scheduling_brings_no_torch() -> None:
    names = ", ".join(f"engine.generation.{name}" for name in ("scheduler", "sequence", "queue", "blocks"))
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
