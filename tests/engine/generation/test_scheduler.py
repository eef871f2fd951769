"""Who is next."""

import time

from engine.generation.scheduler import Scheduler
from engine.generation.sequence import Sequence
from engine.types import FinishReason, GenerationRequest, ReplyChunk
from tests.engine.generation.requests import request


def sequences(count: int) -> list[Sequence]:
    return [Sequence(request(), lambda _: None, time.monotonic()) for _ in range(count)]


def scheduler_with(waiting: list[Sequence], *, max_running: int = 2) -> Scheduler:
    scheduler = Scheduler(max_running=max_running)
    for sequence in waiting:
        scheduler.add(sequence)
    return scheduler


def test_first_come_first_served_and_no_more_than_may_run() -> None:
    first, second, third = waiting = sequences(3)
    scheduler = scheduler_with(waiting)
    assert [scheduler.admit() for _ in range(3)] == [first, second, None]
    scheduler.remove(first)
    assert scheduler.admit() is third
    assert scheduler.running == (second, third)


def test_cancelled_ones_leave_from_both_places() -> None:
    first, second, third = waiting = sequences(3)
    scheduler = scheduler_with(waiting)
    scheduler.admit()
    first.is_cancelled = third.is_cancelled = True
    assert set(scheduler.remove_cancelled()) == {first, third}
    assert scheduler.admit() is second
    assert scheduler.admit() is None


def test_clearing_names_everybody() -> None:
    waiting = sequences(3)
    scheduler = scheduler_with(waiting)
    scheduler.admit()
    assert set(scheduler.clear()) == set(waiting)
    assert not scheduler.has_work


def test_the_last_chunk_carries_what_the_reply_cost() -> None:
    seen: list[object] = []
    asked: GenerationRequest = request()
    sequence = Sequence(asked, seen.append, 10.0, num_prompt_tokens=5, num_new_tokens=7, first_token_at=11.5)
    sequence.finish(FinishReason.STOP, "end", now=13.0)
    (chunk,) = seen
    assert isinstance(chunk, ReplyChunk)
    assert chunk.finish_reason is FinishReason.STOP
    assert chunk.stats is not None
    assert (chunk.stats.time_to_first_token_s, chunk.stats.duration_s, chunk.stats.num_new_tokens) == (1.5, 3.0, 7)
