"""Whole functions on the thread of an aiosqlite connection.

By itself, aiosqlite sends every call of a connection or cursor to the connection's thread and waits for it: some ten
switches of threads for each statement, which cost more than SQLite does. Here a transaction is sent as one job. What it
asks of its own connection is done in place, without waiting.

Owns that way of running. Knows no statement.
"""

import sqlite3
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, cast

import aiosqlite
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class JobConnection(aiosqlite.Connection):
    """A connection that its own thread may use, too."""

    def __init__(self, open_file: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(open_file, iter_chunk_size=64)
        # A program that ends without closing its database must not hang.
        self._thread.daemon = True

    async def run(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that `begin` gives on the connection's thread. It may await nothing but the connection."""
        result: T = await self._execute(_run_to_its_end, begin)
        return result

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - aiosqlite's
        if threading.current_thread() is self._thread:
            return fn(*args, **kwargs)
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]


def connect(database: str, **options: Any) -> JobConnection:  # noqa: ANN401 - whatever sqlite3.connect takes
    """What `aiosqlite.connect` does."""
    return JobConnection(partial(sqlite3.connect, database, **options))


async def run_as_job(connection: AsyncConnection, work: Callable[[Connection], T]) -> T:
    """Run `work` on the thread of `connection`, as one job."""
    raw = await connection.get_raw_connection()
    return await cast(JobConnection, raw.driver_connection).run(lambda: connection.run_sync(work))


def _run_to_its_end(begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
    coroutine = begin()
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a transaction awaited something else than its connection")
