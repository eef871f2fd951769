"""A transaction is one job of its connection's thread, whatever it asks of the connection there."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import Connection

from bot.rooms import RoomSettings
from bot.store.database import Database
from bot.store.jobs import connect
from bot.store.repositories import Conversations, Rooms
from bot.types import ChatKind, ConversationKey, NewTurn, Room
from engine.types import Role

KEY = ConversationKey(Room("web", "1"), "pierrot")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Callable[..., Any]]:
    """What is sent to the threads of connections from now on."""
    sent: list[Callable[..., Any]] = []
    send = aiosqlite.Connection._execute

    async def note(connection: aiosqlite.Connection, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        sent.append(function)
        return await send(connection, function, *args, **kwargs)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", note)
    return sent


async def test_each_transaction_is_one_job(conversations: Conversations, jobs: list[Callable[..., Any]]) -> None:
    await conversations.recent(KEY, max_turns=1)  # opens a connection
    jobs.clear()
    turn = NewTurn(Role.USER, "hello", message_ids=("1", "2"))
    await conversations.append(KEY, turn, awaited=["pierrot"], kind=ChatKind.DIRECT)
    assert len(jobs) == 1
    await conversations.recent(KEY, max_turns=10)
    assert len(jobs) == 2


async def test_what_a_message_wants_of_its_room_is_one_job(rooms: Rooms, jobs: list[Callable[..., Any]]) -> None:
    thread = Room("discord", "1", "7")
    await rooms.persona_and_settings(thread)
    jobs.clear()
    await rooms.persona_and_settings(thread)
    assert len(jobs) == 1


async def test_what_another_process_changes_is_seen_at_once(database: Database, rooms: Rooms) -> None:
    other = Database(database.path)
    room = Room("web", "1")
    for persona_id, number in (("pierrot", 1), ("colombina", 2)):
        await Rooms(other).choose(room, persona_id)
        await Rooms(other).change(room, RoomSettings(max_exchange=number))
        assert await rooms.persona_and_settings(room) == (persona_id, RoomSettings(max_exchange=number))
    await other.aclose()


async def test_a_transaction_that_fails_is_one_job_too(database: Database, jobs: list[Callable[..., Any]]) -> None:
    def fail(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO rooms (platform, chat_id) VALUES ('web', '9')")
        raise RuntimeError("half way")

    await database.read(lambda connection: connection.exec_driver_sql("SELECT 1").all())
    jobs.clear()
    with pytest.raises(RuntimeError, match="half way"):
        await database.write(fail)
    assert len(jobs) == 1
    # The connection goes on, and is in no transaction.
    assert (
        await database.write(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM rooms").scalar()) == 0
    )


async def test_the_event_loop_goes_on_while_a_transaction_works(database: Database) -> None:
    may_end = threading.Event()
    reading = asyncio.create_task(database.read(lambda _: may_end.wait(timeout=30)))
    await asyncio.sleep(0)
    may_end.set()  # by the loop, which a transaction on its own thread would have stopped
    assert await reading


async def test_many_more_readers_than_connections(database: Database, conversations: Conversations) -> None:
    await conversations.append(KEY, NewTurn(Role.USER, "hello"))
    found = await asyncio.gather(*(conversations.recent(KEY, max_turns=1) for _ in range(100)))
    assert [turns[0].text for turns in found] == ["hello"] * 100


async def test_a_job_that_waits_for_something_else_is_a_bug(tmp_path: Path) -> None:
    async with connect(str(tmp_path / "one.db")) as connection:
        with pytest.raises(RuntimeError, match="something else than its connection"):
            await connection.run(lambda: asyncio.sleep(0))
        assert await connection.run(lambda: _number_of(connection)) == 1


async def test_a_program_that_closes_nothing_ends_all_the_same(tmp_path: Path) -> None:
    async with connect(str(tmp_path / "one.db")) as connection:
        assert await connection.run(lambda: _is_daemon())


async def test_what_a_job_raises_reaches_its_caller(tmp_path: Path) -> None:
    async with connect(str(tmp_path / "one.db")) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await connection.run(lambda: _rows(connection, "SELECT * FROM recipes"))


async def _is_daemon() -> bool:
    return threading.current_thread().daemon


async def _number_of(connection: aiosqlite.Connection) -> Any:
    ((number,),) = await _rows(connection, "SELECT 1")
    return number


async def _rows(connection: aiosqlite.Connection, statement: str) -> list[Any]:
    return list(await connection.execute_fetchall(statement))
