"""What has arrived: bounded in number and age, kept a little later than it comes, and never lost by a failure."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from bot.errors import StoreError
from bot.store import seen as seen_module
from bot.store.database import Database
from bot.store.repositories import Conversations, Rooms
from bot.store.seen import SeenEvents
from bot.store.tables import messages, seen_events, seen_marks
from bot.types import ConversationKey, NewTurn, Room
from engine.types import Role

ROOM = Room("telegram", "1")
KEY = ConversationKey(ROOM, "pierrot")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def seen(database: Database) -> SeenEvents:
    return SeenEvents(database, flush_interval_s=0.001)


async def make_old(database: Database, *, days: float) -> None:
    before = datetime.now(UTC) - timedelta(days=days)
    for table in (seen_events, seen_marks, messages):
        await database.write(lambda connection, table=table: connection.execute(update(table).values(seen_at=before)))


async def num_marks_on_disk(database: Database) -> int:
    query = select(func.count()).select_from(seen_marks)
    return await database.read(lambda connection: connection.scalar(query)) or 0


async def test_claims_outlive_a_restart(database: Database, seen: SeenEvents) -> None:
    assert await seen.claim("telegram", "update/1")
    await database.aclose()
    again = Database(database.path)
    assert not await SeenEvents(again).claim("telegram", "update/1")
    await again.aclose()


async def test_the_oldest_of_too_many_claims_are_forgotten(database: Database) -> None:
    seen = SeenEvents(database, max_claims=3)
    for event in ("1", "2", "2", "3", "4"):
        await seen.claim("telegram", event)
    query = select(seen_events.c.event).order_by(seen_events.c.id)
    assert list(await database.read(lambda connection: connection.scalars(query))) == ["2", "3", "4"]
    assert not await seen.claim("telegram", "2")
    assert await seen.claim("telegram", "1")


async def test_what_nobody_heard_of_for_a_week_is_forgotten(database: Database, seen: SeenEvents) -> None:
    await seen.claim("telegram", "update/1")
    seen.note("telegram", "1", "5")
    await seen.flush()
    await make_old(database, days=6.9)
    await seen.prune()
    assert not await seen.claim("telegram", "update/1")
    assert await seen.marks("telegram", since=LONG_AGO) == {"1": "5"}
    await make_old(database, days=7.1)
    await seen.prune()
    assert await seen.claim("telegram", "update/1")
    assert await seen.marks("telegram", since=LONG_AGO) == {}


async def test_a_chat_that_moved_is_not_looked_up_by_its_old_messages(database: Database, seen: SeenEvents) -> None:
    for platform, chat_id in (("telegram", "1"), ("telegram", "2"), ("discord", "1")):
        seen.note(platform, chat_id, "5")
    await seen.flush()
    await Rooms(database).move("telegram", "1", "-100")
    assert await seen.marks("telegram", since=LONG_AGO) == {"2": "5"}
    assert await seen.marks("discord", since=LONG_AGO) == {"1": "5"}


async def test_messages_without_a_turn_are_forgotten_in_time(
    database: Database, seen: SeenEvents, conversations: Conversations
) -> None:
    await conversations.append(KEY, NewTurn(Role.USER, "why?", None, ("m1", "m2")))
    await conversations.append(KEY, NewTurn(Role.ASSISTANT, "so", None, ("m3",)))
    (asked, _) = await conversations.recent(KEY, max_turns=2)
    await conversations.remove(KEY, [asked.id])
    assert await seen.prune_messages(datetime.now(UTC) - timedelta(days=30)) == 0
    await make_old(database, days=31)
    assert await seen.prune_messages(datetime.now(UTC) - timedelta(days=30)) == 2
    assert await conversations.speaker(ROOM, "m3") == "pierrot"
    assert await conversations.append(KEY, NewTurn(Role.USER, "why?", None, ("m1",))) is not None


async def test_notes_are_kept_by_the_loop_and_at_its_end(database: Database, seen: SeenEvents) -> None:
    running = asyncio.create_task(seen.run())
    seen.note("discord", "1", "5")
    async with asyncio.timeout(10):
        while not await num_marks_on_disk(database):
            await asyncio.sleep(0.001)
    running.cancel()
    # Before the loop has heard of its end.
    seen.note("discord", "2", "6")
    await asyncio.gather(running, return_exceptions=True)
    assert await num_marks_on_disk(database) == 2


async def test_the_loop_forgets_at_its_start(database: Database, seen: SeenEvents) -> None:
    await seen.claim("telegram", "update/1")
    await make_old(database, days=8)
    running = asyncio.create_task(seen.run())
    async with asyncio.timeout(10):
        while not await seen.claim("telegram", "update/1"):
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_busy_server_costs_one_transaction(
    database: Database, seen: SeenEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_writes = 0
    write = database.write

    async def counted(work):
        nonlocal num_writes
        num_writes += 1
        return await write(work)

    monkeypatch.setattr(database, "write", counted)
    for number in range(1000):
        seen.note("discord", str(number % 300), str(number))
    await seen.flush()
    await seen.flush()
    assert num_writes == 1
    assert len(await seen.marks("discord", since=LONG_AGO)) == 300


async def test_what_could_not_be_kept_is_kept_later(
    database: Database, seen: SeenEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_work: object) -> None:
        seen.note("discord", "1", "6")
        raise StoreError("the disk is full")

    seen.note("discord", "1", "5")
    seen.note("discord", "2", "5")
    with monkeypatch.context() as patch:
        patch.setattr(database, "write", fail)
        with pytest.raises(StoreError):
            await seen.flush()
        running = asyncio.create_task(seen.run())
        async with asyncio.timeout(10):
            while not any("the disk is full" in record.message for record in caplog.records):
                await asyncio.sleep(0.001)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert await seen.marks("discord", since=LONG_AGO) == {"1": "6", "2": "5"}


async def test_what_waits_to_be_kept_is_bounded(seen: SeenEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "MAX_NOTED_CHATS", 2)
    for chat_id in ("1", "2", "1", "3"):
        seen.note("discord", chat_id, "5")
    assert await seen.marks("discord", since=LONG_AGO) == {"1": "5", "3": "5"}
