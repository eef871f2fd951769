import mmap
import time
from collections import Counter

import pytest

pytest.importorskip("benchmarks", reason="benchmarks come with a checkout only")

from benchmarks.soak import Counts, Visitor, _judge, _memory_mb
from engine.types import GenerationRequest
from tests.fakes.engine import ScriptedEngine
from tests.fakes.personas import a_persona


def counts(*, waits: tuple[float, ...] = (1.0, 2.0, 2.0), memory: tuple[float, ...] = (900.0,) * 9) -> Counts:
    return Counts(waits=list(waits), memory_mb=list(memory), num_served=3)


def test_equal_waits_and_equal_memory_are_well() -> None:
    assert _judge(counts(), minutes=1, num_chats=2).is_well


def test_who_waits_three_times_as_long_starves() -> None:
    assert not _judge(counts(waits=(1.0, 1.0, 2.9)), minutes=1, num_chats=2).is_starving
    assert _judge(counts(waits=(1.0, 1.0, 3.1)), minutes=1, num_chats=2).is_starving
    assert _judge(counts(waits=()), minutes=1, num_chats=2).is_starving


def test_memory_that_grows_late_is_a_leak_and_memory_that_fills_early_is_not() -> None:
    early = (100.0, 500.0, 900.0, *(1000.0,) * 6)
    late = (*(1000.0,) * 6, 1050.0, 1100.0, 1100.0)
    assert not _judge(counts(memory=early), minutes=1, num_chats=2).is_leaking
    assert _judge(counts(memory=late), minutes=1, num_chats=2).is_leaking


def test_a_failure_is_not_well() -> None:
    with_failure = counts()
    with_failure.failures = Counter({"no memory": 1})
    assert not _judge(with_failure, minutes=1, num_chats=2).is_well


def test_memory_is_that_of_this_process() -> None:
    before = _memory_mb()
    # From the kernel: what Python allocates may be memory that an earlier test has left.
    with mmap.mmap(-1, 60_000_000) as held:
        held.write(b"x" * len(held))
        assert _memory_mb() - before > 40


async def test_a_visitor_is_somebody_else_every_time_and_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.soak.SHARE_CANCELLED", 0.5)
    monkeypatch.setattr("benchmarks.soak.MAX_PATIENCE_S", 0.002)
    monkeypatch.setattr("benchmarks.soak.MAX_PAUSE_S", 0.0)

    def script(_: GenerationRequest) -> tuple[float, str]:
        return 0.005, "Hello"

    engine, seen = ScriptedEngine(script), Counts()
    visitor = Visitor(1, engine, (a_persona("Ann"),), ["word"])  # type: ignore[arg-type]
    await visitor.stay(seen, since=0.0, until=time.monotonic() + 0.3)
    askers = [request.asker.user for request in engine.requests if request.asker is not None]
    assert len(set(askers)) == len(askers) == len(engine.requests) > 5
    assert seen.num_given_up == engine.num_closed_early > 0
    assert len(seen.waits) == len(askers) - seen.num_given_up
