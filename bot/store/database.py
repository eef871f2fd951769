"""The SQLite file: opens it, migrates it, and orders those who write to it.

Owns the engine, its pragmas and its transactions. Knows no table's meaning: `bot.store.repositories` does.
"""

import asyncio
import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, event, inspect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import migrations
from bot.errors import StoreError
from bot.logs import log_failure
from bot.store.jobs import connect, run_as_job
from bot.store.remedies import DAMAGED, NEWER, store_errors

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Connection], T]

BUSY_TIMEOUT_S = 10
NUM_CONNECTIONS = 5
NO_TRANSACTION = ""
PRAGMAS = (
    f"busy_timeout = {BUSY_TIMEOUT_S * 1000}",
    "journal_mode = WAL",
    # What was committed survives a power cut too: platforms send a message that was taken only once.
    "synchronous = FULL",
    # What is forgotten is overwritten, not only unlinked.
    "secure_delete = ON",
)


class Database:
    """One SQLite file that many conversations use at once. Raises `StoreError` where an admin can help."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _create_engine(path, foreign_keys=True)
        self._writing = _writing(self._engine)
        self._writers = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    async def upgrade(self) -> None:
        """Bring the file to the newest schema, all of it or nothing."""
        await self._finish(self._upgrade())

    async def revision(self) -> str | None:
        """The schema revision of the file, `None` where there is none yet. Never creates the file."""
        with store_errors(self.path):
            if not await asyncio.to_thread(self.path.exists):
                return None
        return await self.read(_current_revision)

    async def read(self, work: Work[T]) -> T:
        """Run `work` in one transaction, on one snapshot of the data.

        It runs on a thread of its own, to which the event loop's objects do not belong.
        """
        return await self._finish(self._transact(self._engine, work))

    async def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction, committed before this returns. Writers take turns, first come first served.

        It runs to its end even where the caller is cancelled, and on a thread of its own as a reader does.
        """
        return await self._finish(self._write(work))

    async def empty_log(self) -> None:
        """Move what is in the write-ahead log into the file, so that nothing deleted stays readable in it.

        Never raises: what it cannot move now, because the disk is full or another process reads, goes the next time.
        """
        await self._finish(self._empty_log())

    async def aclose(self) -> None:
        """Let running transactions end, and close all connections. Safe to call twice."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._engine.dispose()

    async def _upgrade(self) -> None:
        with store_errors(self.path):
            await asyncio.to_thread(_make_private_file, self.path)
            await asyncio.to_thread(_switch_to_wal, self.path)
            # A migration may rebuild a table; with foreign keys on, dropping the old one would empty its children.
            engine = _create_engine(self.path, foreign_keys=False)
            try:
                await self._transact(_writing(engine), lambda connection: _migrate(connection, self.path))
            finally:
                await engine.dispose()

    async def _write(self, work: Work[T]) -> T:
        # SQLite has one writer at a time. Waiting here is fair and needs no connection; other processes, such as
        # `commedia chat` beside `commedia run`, are waited for by the busy timeout.
        async with self._writers:
            return await self._transact(self._writing, work)

    async def _empty_log(self) -> None:
        async with self._writers:
            try:
                await self._transact(self._engine.execution_options(begin=NO_TRANSACTION), _move_log)
            except StoreError as error:
                logger.warning("what was forgotten stays in the write-ahead log for now: %s", error)

    async def _transact(self, engine: AsyncEngine, work: Work[T]) -> T:
        with store_errors(self.path):
            async with engine.connect() as connection:
                return await run_as_job(connection, partial(_in_transaction, work))

    async def _finish(self, transaction: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(transaction)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise


def head_revision() -> str:
    """The newest schema revision that this Commedia knows."""
    (revision,) = ScriptDirectory.from_config(alembic_config()).get_heads()
    return revision


def alembic_config() -> Config:
    """Alembic's configuration, made from where `migrations` is installed."""
    config = Config()
    folder = str(Path(migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config


def _create_engine(path: Path, *, foreign_keys: bool) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        # Without this the driver begins transactions by itself, and only at the first write.
        connect_args={"isolation_level": None, "async_creator_fn": connect},
        pool_size=NUM_CONNECTIONS,
        max_overflow=0,
        # Each job ends its transaction itself; to do it again would take another one.
        pool_reset_on_return=None,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in (*PRAGMAS, f"foreign_keys = {'ON' if foreign_keys else 'OFF'}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("begin", "BEGIN")
        if statement != NO_TRANSACTION:
            connection.exec_driver_sql(statement)

    return engine


def _writing(engine: AsyncEngine) -> AsyncEngine:
    """The same engine, its transactions taking the write lock at once: a reader that turns writer can deadlock."""
    return engine.execution_options(begin="BEGIN IMMEDIATE")


def _in_transaction(work: Work[T], connection: Connection) -> T:
    with connection.begin():
        return work(connection)


def _move_log(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _make_private_file(path: Path) -> None:
    """Make the file where there is none: what people write is for this user's eyes only."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _switch_to_wal(path: Path) -> None:
    """Where two processes switch a new file at once, SQLite refuses one of them without waiting."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    with closing(sqlite3.connect(path)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _migrate(connection: Connection, path: Path) -> None:
    _check_can_migrate(connection, path)
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    # A file that is only readable fails here, at the start, and not at somebody's first message.
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise StoreError(f"{path} was not migrated, because {len(broken)} of its rows point nowhere: put back a backup")


def _check_can_migrate(connection: Connection, path: Path) -> None:
    current = _current_revision(connection)
    if current is None:
        if inspect(connection).get_table_names():
            raise StoreError(DAMAGED.format(path=path))
        return
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if current not in known:
        raise StoreError(NEWER.format(path=path, revision=current))


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log_failure(logger, "a transaction failed after its caller had gone", error)
