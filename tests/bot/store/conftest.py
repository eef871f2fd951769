"""A migrated database in a folder of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.store.database import Database
from bot.store.repositories import Conversations, Rooms


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "home" / "commedia.db")
    await database.upgrade()
    yield database
    await database.aclose()


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


@pytest.fixture
def rooms(database: Database) -> Rooms:
    return Rooms(database)
