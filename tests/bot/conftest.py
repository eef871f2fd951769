"""What every test of the bot begins with."""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bot.store.attachments import AttachmentStore
from bot.store.database import Database
from bot.store.ratings import Ratings
from bot.store.repositories import Conversations, Rooms
from tests.bot.chatting import Stage
from tests.fakes.adapter import FakeChannel
from tests.fakes.engine import ScriptedEngine
from tests.fakes.personas import MemoryLibrary, a_persona
from tests.fakes.store import MemoryAttachments, MemoryConversations, MemoryRatings, MemoryRooms


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """`configure_logging` changes the whole process."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    names = [name for name, found in root.manager.loggerDict.items() if isinstance(found, logging.Logger)]
    levels = {name: logging.getLogger(name).level for name in names}
    root_level = root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        with contextlib.suppress(OSError):  # the disk that is full in one test
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(root_level)
    for name, found in list(root.manager.loggerDict.items()):
        if isinstance(found, logging.Logger):
            found.setLevel(levels.get(name, logging.NOTSET))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database at the newest schema, to be copied: migrating one for every test takes longer than the tests."""

    async def migrate(path: Path) -> None:
        database = Database(path)
        await database.upgrade()
        await database.aclose()

    path = tmp_path_factory.mktemp("migrated") / "commedia.db"
    asyncio.run(migrate(path))
    return path


@pytest.fixture(params=["memory", "sqlite"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> AsyncIterator[Stage]:
    engine = ScriptedEngine()
    library = MemoryLibrary([a_persona("Luna"), a_persona("Max")])
    async with contextlib.AsyncExitStack() as stack:
        conversations, attachments = MemoryConversations(), MemoryAttachments()
        rooms = MemoryRooms(conversations=conversations)
        ratings = MemoryRatings(conversations)
        if request.param == "sqlite":
            database = Database(Path(shutil.copy(migrated, tmp_path)))
            stack.push_async_callback(database.aclose)
            conversations, rooms = Conversations(database), Rooms(database)
            attachments, ratings = AttachmentStore(tmp_path / "attachments", database), Ratings(database)
        stage = Stage(engine, library, conversations, rooms, attachments, ratings, FakeChannel())
        yield stage
        await stage.chat.aclose()
