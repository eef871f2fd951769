"""The file: made, migrated, refused with a remedy, shared by many at once, and safe against kill -9."""

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.errors import StoreError
from bot.store import database as database_module
from bot.store.database import Database, head_revision
from bot.store.repositories import Conversations
from bot.types import ConversationKey, NewTurn, Room
from engine.types import Role

KEY = ConversationKey(Room("web", "1"), "pierrot")


def said(text: str) -> NewTurn:
    return NewTurn(Role.USER, text)


async def texts(conversations: Conversations) -> list[str]:
    return [turn.text for turn in await conversations.recent(KEY, max_turns=10_000)]


def on_every_connection(database: Database, pragma: str) -> None:
    @event.listens_for(database._engine.sync_engine, "connect")
    def set_pragma(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA {pragma}")


async def happens(on_a_thread: threading.Event) -> None:
    assert await asyncio.to_thread(on_a_thread.wait, 30)


async def test_a_new_database_gets_the_newest_schema(tmp_path: Path) -> None:
    database = Database(tmp_path / "100% new" / "deeper" / "commedia.db")
    assert await database.revision() is None
    assert not database.path.exists()
    await database.upgrade()
    assert await database.revision() == head_revision()
    await database.upgrade()
    await database.aclose()
    await database.aclose()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
async def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "commedia.db")
    await database.upgrade()
    await database.aclose()
    assert database.path.stat().st_mode & 0o077 == 0


async def test_pragmas_hold_on_every_connection(database: Database) -> None:
    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "foreign_keys", "synchronous", "busy_timeout", "secure_delete")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    for found in await asyncio.gather(*(database.read(pragmas) for _ in range(8))):
        assert found == ["wal", 1, 2, 10_000, 1]


async def test_a_failed_transaction_leaves_nothing(database: Database, conversations: Conversations) -> None:
    def fail(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO rooms (platform, chat_id) VALUES ('web', '9')")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await database.write(fail)
    count = "SELECT count(*) FROM rooms"
    assert await database.read(lambda connection: connection.exec_driver_sql(count).scalar_one()) == 0
    await conversations.append(KEY, said("goes on"))


# Side by side


async def test_many_writers_at_once(database: Database) -> None:
    other = Database(database.path)  # as `commedia chat` beside `commedia run`
    keys = [ConversationKey(Room("web", str(number)), "pierrot") for number in range(5)]
    stores = [Conversations(database), Conversations(other)]
    await asyncio.gather(
        *(stores[number % 2].append(keys[number // 2 % 5], said(str(number))) for number in range(100))
    )
    counts = [len(await Conversations(database).recent(key, max_turns=1000)) for key in keys]
    assert counts == [20] * 5
    await other.aclose()


async def test_fifty_appends_at_once_keep_their_order(conversations: Conversations) -> None:
    stored = await asyncio.gather(*(conversations.append(KEY, said(str(number))) for number in range(50)))
    assert await conversations.recent(KEY, max_turns=100) == stored
    assert await texts(conversations) == [str(number) for number in range(50)]


async def test_readers_do_not_wait_for_a_writer(database: Database, conversations: Conversations) -> None:
    await conversations.append(KEY, said("before"))
    is_writing, may_end = threading.Event(), threading.Event()

    def write_slowly(connection: Connection) -> None:
        connection.exec_driver_sql("DELETE FROM turns")
        is_writing.set()
        assert may_end.wait(timeout=30)

    writer = asyncio.create_task(database.write(write_slowly))
    await happens(is_writing)
    assert await asyncio.wait_for(texts(conversations), timeout=5) == ["before"]
    may_end.set()
    await writer
    assert await texts(conversations) == []


async def test_upgrades_at_once(tmp_path: Path) -> None:
    databases = [Database(tmp_path / "commedia.db") for _ in range(4)]
    await asyncio.gather(*(database.upgrade() for database in databases))
    assert await databases[0].revision() == head_revision()
    await asyncio.gather(*(database.aclose() for database in databases))


# Cancellation


async def test_a_write_ends_although_its_caller_is_cancelled(database: Database, conversations: Conversations) -> None:
    is_inside, may_end = threading.Event(), threading.Event()

    def block(_connection: Connection) -> None:
        is_inside.set()
        assert may_end.wait(timeout=30)

    blocker = asyncio.create_task(database.write(block))
    await happens(is_inside)
    appending = asyncio.create_task(conversations.append(KEY, said("stored all the same")))
    await asyncio.sleep(0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    may_end.set()
    await blocker
    await database.aclose()
    assert await texts(conversations) == ["stored all the same"]


async def test_a_failure_after_cancellation_is_logged(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    is_inside, may_end = threading.Event(), threading.Event()

    def fail_late(_connection: Connection) -> None:
        is_inside.set()
        assert may_end.wait(timeout=30)
        raise RuntimeError("too late")

    writing = asyncio.create_task(database.write(fail_late))
    await happens(is_inside)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    may_end.set()
    await database.aclose()
    await asyncio.sleep(0)
    assert "too late" in caplog.text


# Refused, with the remedy


async def refusal(path: Path) -> str:
    database = Database(path)
    with pytest.raises(StoreError) as caught:
        await database.upgrade()
    await database.aclose()
    return str(caught.value)


async def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "commedia.db").mkdir()
    assert "move it away" in await refusal(tmp_path / "commedia.db")


async def test_a_file_in_its_folders_place(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("mine")
    assert "move it away" in await refusal(tmp_path / "home" / "commedia.db")
    assert (tmp_path / "home").read_text() == "mine"


async def test_another_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "commedia.db"
    path.write_text("Dear diary, " * 1000)
    assert "is not a Commedia database" in await refusal(path)
    assert path.read_text() == "Dear diary, " * 1000


async def test_a_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name)")
    assert "is not a Commedia database" in await refusal(path)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]


async def test_a_newer_schema(database: Database, conversations: Conversations) -> None:
    await conversations.append(KEY, said("from the future"))
    with closing(sqlite3.connect(database.path)) as newer, newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    message = await refusal(database.path)
    assert "newer Commedia (schema 9999)" in message
    assert "update Commedia" in message
    assert await texts(conversations) == ["from the future"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
async def test_an_unwritable_folder(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o500)
    assert "cannot be used" in await refusal(folder / "commedia.db")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "cannot be used"),
        (errno.EROFS, "cannot be used"),
        (errno.ENOSPC, "is full"),
        (errno.EIO, "check the disk"),
    ],
)
async def test_what_the_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(path: Path, mode: int = 0) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    assert remedy in await refusal(tmp_path / "commedia.db")


async def test_a_full_disk_in_the_middle_of_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "commedia.db"
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "PRAGMAS", (*database_module.PRAGMAS, "max_page_count = 5"))
        assert "is full" in await refusal(path)
    database = Database(path)
    assert await database.revision() is None
    await database.upgrade()
    await database.aclose()


async def test_a_full_disk_loses_nothing_that_was_stored(database: Database) -> None:
    await Conversations(database).append(KEY, said("early"))
    full = Database(database.path)
    on_every_connection(full, "max_page_count = 40")
    with pytest.raises(StoreError, match="is full"):
        await Conversations(full).append(KEY, said("x" * 1_000_000))
    await Conversations(full).append(KEY, said("small"))
    await full.aclose()
    assert await texts(Conversations(database)) == ["early", "small"]


async def test_a_read_only_file(database: Database) -> None:
    read_only = Database(database.path)
    on_every_connection(read_only, "query_only = ON")
    with pytest.raises(StoreError, match="cannot be used"):
        await Conversations(read_only).append(KEY, said("hello"))
    await read_only.aclose()


async def test_a_read_only_file_is_refused_at_the_start(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    create_engine = database_module._create_engine

    def create_read_only(path: Path, *, foreign_keys: bool) -> AsyncEngine:
        """As for a file of mode 0400, which would not hold back root."""
        engine = create_engine(path, foreign_keys=foreign_keys)

        @event.listens_for(engine.sync_engine, "do_connect")
        def open_read_only(
            _dialect: object, _record: object, arguments: list[object], options: dict[str, object]
        ) -> None:
            arguments[:] = [f"file:{path}?mode=ro"]
            options["uri"] = True

        return engine

    monkeypatch.setattr(database_module, "_create_engine", create_read_only)
    assert "cannot be used" in await refusal(database.path)


async def test_forgetting_succeeds_although_the_log_cannot_be_emptied(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    conversations = Conversations(database)
    await conversations.append(KEY, said("hello"))

    @event.listens_for(database._engine.sync_engine, "before_cursor_execute")
    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "wal_checkpoint" in statement:
            raise OSError(errno.ENOSPC, "No space left on device")

    assert await conversations.reset(KEY) == 1
    assert await texts(conversations) == []
    assert "is full" in caplog.text


async def test_a_file_held_by_another_process(database: Database) -> None:
    impatient = Database(database.path)
    on_every_connection(impatient, "busy_timeout = 20")
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process"):
            await Conversations(impatient).append(KEY, said("hello"))
        other.execute("ROLLBACK")
    await Conversations(impatient).append(KEY, said("hello again"))
    assert await texts(Conversations(impatient)) == ["hello again"]
    await impatient.aclose()


async def test_a_damaged_file(database: Database, conversations: Conversations) -> None:
    for number in range(50):
        await conversations.append(KEY, said(str(number) * 500))
    await database.aclose()
    with database.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (database.path.stat().st_size - 4096))
    with pytest.raises(StoreError, match="damaged"):
        await conversations.recent(KEY, max_turns=100)


async def test_a_database_that_was_never_set_up(tmp_path: Path) -> None:
    database = Database(tmp_path / "commedia.db")
    with pytest.raises(StoreError, match="commedia db upgrade"):
        await Conversations(database).recent(KEY, max_turns=1)
    await database.aclose()


async def test_a_bug_is_not_dressed_up_as_the_admins_fault(database: Database) -> None:
    with pytest.raises(Exception, match="NOT NULL") as caught:
        await database.write(lambda connection: connection.exec_driver_sql("INSERT INTO rooms (chat_id) VALUES ('1')"))
    assert not isinstance(caught.value, StoreError)


# kill -9

WRITE_FOR_EVER = """
import asyncio, itertools, sys
from pathlib import Path
from bot.store.database import Database
from bot.store.repositories import Conversations
from bot.types import ConversationKey, NewTurn, Room
from engine.types import Role

async def main():
    database = Database(Path(sys.argv[1]))
    await database.upgrade()
    conversations = Conversations(database)
    for number in itertools.count():
        await conversations.append(
            ConversationKey(Room("web", "1"), "pierrot"),
            NewTurn(Role.USER, f"{number} " * 200, message_ids=(str(number),)),
        )
        print(number, flush=True)

asyncio.run(main())
"""


async def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "commedia.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert writer.stdout is not None
    try:
        for line in writer.stdout:
            if int(line) == 60:
                break
    finally:
        writer.kill()
        rest, _ = writer.communicate(timeout=30)
    last_seen = int((rest.split() or ["60"])[-1])

    database = Database(path)
    await database.upgrade()
    conversations = Conversations(database)
    found = [int(text.split()[0]) for text in await texts(conversations)]
    assert found == list(range(len(found)))
    # One more may be committed than its writer lived to say.
    assert last_seen >= 60
    assert len(found) - 1 in (last_seen, last_seen + 1)
    assert await conversations.append(KEY, NewTurn(Role.USER, "again", message_ids=("0",))) is None
    assert await conversations.append(KEY, said("goes on")) is not None
    await database.aclose()
