"""A migrated database in a folder of its own."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.store.database import Database
from bot.store.repositories import Conversations, Rooms


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of the newest schema. Copying it is faster than migrating again."""

    async def migrate(database: Database) -> None:
        await database.upgrade()
        await database.aclose()

    path = tmp_path_factory.mktemp("migrated") / "commedia.db"
    asyncio.run(migrate(Database(path)))
    return path


@pytest.fixture
async def database(migrated: Path, tmp_path: Path) -> AsyncIterator[Database]:
    (tmp_path / "home").mkdir()
    database = Database(Path(shutil.copy(migrated, tmp_path / "home")))
    yield database
    await database.aclose()


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


@pytest.fixture
def rooms(database: Database) -> Rooms:
    return Rooms(database)
