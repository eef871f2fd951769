"""The schema's steps: from every earlier revision with rows in it, and to the very schema that the code expects.

A new step needs an entry in `ROWS`: what a database of that revision holds. Entries of earlier revisions stay as they
are, for databases like them are out there.
"""

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import migrations
from bot.errors import StoreError
from bot.rooms import RoomSettings
from bot.store import database as database_module
from bot.store.database import Database, alembic_config, head_revision
from bot.store.ratings import Ratings
from bot.store.repositories import Conversations, PictureEmbeddings, Rooms
from bot.store.seen import SeenEvents
from bot.store.tables import metadata
from bot.types import Alternatives, Attachment, Author, ConversationKey, NewTurn, Rating, ReplyOrigin, Room
from engine.types import Role

DIGEST = "ab" * 32
ROWS = {
    "0001": f"""
        INSERT INTO rooms VALUES (1, 'discord', '100', NULL, 'pierrot'), (2, 'telegram', '100', '7', NULL);
        INSERT INTO conversations VALUES (1, 1, 'pierrot'), (2, 2, 'colombina');
        INSERT INTO turns VALUES
            (1, 1, 'user', 'Look! 看', '2026-11-22 10:00:00.000000', 'discord', '42', 'Anna', 0),
            (2, 1, 'assistant', 'A dog.', '2026-11-22 10:00:01.500000', NULL, NULL, NULL, NULL),
            (3, 2, 'user', 'Elsewhere', '2026-11-22 10:00:02.000000', 'telegram', '43', 'Bo', 0);
        INSERT INTO messages VALUES (1, 'm1', 1, NULL), (1, 'm2', 2, 'pierrot'), (2, 'm1', 3, NULL);
        INSERT INTO attachments VALUES ('{DIGEST}', 'image/png', 100, 3, 2);
        INSERT INTO turn_attachments VALUES (1, 0, '{DIGEST}');
    """,
}
ROWS["0002"] = (
    ROWS["0001"]
    + f"""
        INSERT INTO reply_origins VALUES (2, 1, 'cafe');
        INSERT INTO picture_embeddings VALUES ('{DIGEST}', 'space-1', x'0000803f00000040');
    """
)
ROWS["0003"] = (
    ROWS["0002"].replace(
        "(1, 'm1', 1, NULL), (1, 'm2', 2, 'pierrot'), (2, 'm1', 3, NULL)",
        "(1, 'm1', 1, NULL, 0, '2026-11-22 10:00:00.000000'), (1, 'm2', 2, 'pierrot', 0, '2026-11-22 10:00:01.500000'),"
        " (2, 'm1', 3, NULL, 0, '2026-11-22 10:00:02.000000')",
    )
    + """
        INSERT INTO awaited_replies VALUES (3, 'colombina', 'group', '["m9"]');
        INSERT INTO alternatives VALUES (1, 2, 'A cat.', 0), (2, 2, 'A dog.', 1);
        INSERT INTO rating_consents VALUES ('discord', '42', 1, '2026-11-22 10:00:03.000000');
        INSERT INTO ratings VALUES (1, 'discord', '42', 'bad', '2026-11-22 10:00:03.000000');
        INSERT INTO room_settings VALUES (1, '{"cast": ["colombina"]}');
        INSERT INTO seen_events VALUES (1, 'telegram', 'update/7', '2026-11-22 10:00:00.000000');
        INSERT INTO seen_marks VALUES ('discord', '100', '1234', '2026-11-22 10:00:00.000000');
        INSERT INTO incidents VALUES ('discord', 'poison', 3, '2026-11-22 10:00:00.000000', 'KeyError');
    """
)
REVISIONS = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()]


def bring_to(path: Path, revision: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_every_revision_has_rows() -> None:
    assert sorted(ROWS) == sorted(REVISIONS), "a new step needs rows in ROWS"
    assert len(ScriptDirectory.from_config(alembic_config()).get_heads()) == 1


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_rows_of_a_revision_fill_every_table(tmp_path: Path, revision: str) -> None:
    bring_to(tmp_path / "old.db", revision)
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.executescript(ROWS[revision])
        names = [name for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        empty = [name for name in names if not old.execute(f"SELECT count(*) FROM {name}").fetchone()[0]]
    assert empty == []


@pytest.mark.parametrize("revision", REVISIONS)
async def test_rows_of_every_revision_survive(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "commedia.db"
    bring_to(path, revision)
    with closing(sqlite3.connect(path)) as old:
        old.executescript(ROWS[revision])

    database = Database(path)
    await database.upgrade()
    assert await database.revision() == head_revision()
    await check_rows(database)
    await database.aclose()
    with closing(sqlite3.connect(path)) as migrated:
        assert migrated.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert migrated.execute("PRAGMA foreign_key_check").fetchall() == []


async def check_rows(database: Database) -> None:
    conversations, discord = Conversations(database), Room("discord", "100")
    key = ConversationKey(discord, "pierrot")
    asked, answered = await conversations.recent(key, max_turns=10)
    assert (asked.role, asked.text, asked.author) == (Role.USER, "Look! 看", Author("discord", "42", "Anna"))
    assert asked.created_at.isoformat() == "2026-11-22T10:00:00+00:00"
    assert asked.attachments == (Attachment(DIGEST, "image/png", 100, 3, 2),)
    assert (answered.role, answered.text, answered.author) == (Role.ASSISTANT, "A dog.", None)
    elsewhere = ConversationKey(Room("telegram", "100", "7"), "colombina")
    assert [turn.text for turn in await conversations.recent(elsewhere, max_turns=10)] == ["Elsewhere"]
    assert await conversations.speaker(discord, "m2") == "pierrot"
    assert await Rooms(database).persona_id(discord) == "pierrot"

    assert await conversations.append(key, NewTurn(Role.USER, "again", message_ids=("m1",))) is None
    new = await conversations.append(key, NewTurn(Role.USER, "new", message_ids=("m3",)))
    assert new is not None
    assert new.id > answered.id
    assert await conversations.reset(key) == 3


async def test_origins_and_embeddings_of_0002_survive(filled: Database) -> None:
    await filled.upgrade()
    pierrot = ConversationKey(Room("discord", "100"), "pierrot")
    assert await Conversations(filled).origin_of(pierrot, 2) == ReplyOrigin(1, "cafe")
    assert await PictureEmbeddings(filled).of([DIGEST], space="space-1") == {DIGEST: (1.0, 2.0)}
    assert await PictureEmbeddings(filled).of([DIGEST], space="space-2") == {}


async def test_messages_of_0002_keep_their_order_and_are_not_forgotten_at_once(tmp_path: Path) -> None:
    path = tmp_path / "commedia.db"
    bring_to(path, "0002")
    with closing(sqlite3.connect(path)) as old:
        old.executescript(ROWS["0002"])
        # A reply in three messages, between those of another one, and a message whose turn was forgotten.
        old.executescript(
            """
            INSERT INTO turns VALUES (4, 1, 'assistant', 'Long.', '2001-01-01 10:00:00.000000', NULL, NULL, NULL, NULL);
            INSERT INTO messages VALUES
                (1, 'm9', 4, 'pierrot'), (1, 'm3', 2, 'pierrot'), (1, 'm8', 4, 'pierrot'), (1, 'm10', 4, 'pierrot'),
                (1, 'm0', NULL, 'pierrot');
            """
        )
    database = Database(path)
    await database.upgrade()
    conversations, key = Conversations(database), ConversationKey(Room("discord", "100"), "pierrot")
    assert await conversations.message_ids(key, 4) == ("m9", "m8", "m10")
    assert await conversations.message_ids(key, 2) == ("m2", "m3")
    now = datetime.now(UTC)
    assert await SeenEvents(database).prune_messages(now - timedelta(hours=1)) == 0
    assert await conversations.remove(key, [4]) == 1
    assert await SeenEvents(database).prune_messages(now - timedelta(hours=1)) == 3
    assert await SeenEvents(database).prune_messages(now + timedelta(hours=1)) == 1
    await database.aclose()


async def test_what_0003_keeps_beside_turns_survives(filled: Database) -> None:
    await filled.upgrade()
    conversations, pierrot = Conversations(filled), ConversationKey(Room("discord", "100"), "pierrot")
    (owed,) = await conversations.awaited("telegram", since=datetime(2001, 1, 1, tzinfo=UTC))
    assert (owed.turn.id, owed.persona_id, owed.message_id, owed.message_ids) == (3, "colombina", "m1", ("m9",))
    assert await conversations.alternatives(pierrot, 2) == Alternatives(("A cat.", "A dog."), 1)
    assert await Ratings(filled).of(pierrot, 2) == {0: {Rating.BAD: 1}}
    assert await Rooms(filled).settings(pierrot.room) == RoomSettings(cast=("colombina",))
    assert not await SeenEvents(filled).claim("telegram", "update/7")


def test_the_steps_lead_to_the_tables_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "commedia.db"
    bring_to(path, "head")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata, "compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_new_database_equals_one_made_from_the_tables(tmp_path: Path) -> None:
    """What alembic does not compare: checks, cascades, autoincrement."""
    bring_to(tmp_path / "steps.db", "head")
    engine = create_engine(f"sqlite:///{tmp_path / 'tables.db'}")
    metadata.create_all(engine)
    engine.dispose()
    assert definitions(tmp_path / "steps.db") == definitions(tmp_path / "tables.db")


def definitions(path: Path) -> dict[str, list[str]]:
    """Each table's and index's definition, as its parts in a fixed order."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'"
    with closing(sqlite3.connect(path)) as database:
        return {
            name: sorted(line.strip().rstrip(",").replace('"', "") for line in sql.splitlines())
            for name, sql in database.execute(query)
        }


async def test_it_runs_from_a_folder_with_a_percent_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "100% (new)" / "migrations"
    shutil.copytree(Path(migrations.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "__file__", str(folder / "__init__.py"))
    database = Database(tmp_path / "commedia.db")
    await database.upgrade()
    assert await database.revision() == head_revision()
    await database.aclose()


# Steps to come, written into a copy of the folder


@pytest.fixture
def add_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    folder = tmp_path / "steps"
    shutil.copytree(Path(migrations.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    config = alembic_config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    monkeypatch.setattr(database_module, "alembic_config", lambda: config)

    def add(body: str) -> None:
        head = f'revision = "next"\ndown_revision = "{REVISIONS[0]}"\n'
        (folder / "versions" / "next.py").write_text(f"from alembic import op\n{head}\ndef upgrade():\n    {body}\n")

    return add


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[Database]:
    """A database of today with rows in it."""
    bring_to(tmp_path / "commedia.db", REVISIONS[0])
    with closing(sqlite3.connect(tmp_path / "commedia.db")) as old:
        old.executescript(ROWS[REVISIONS[0]])
    database = Database(tmp_path / "commedia.db")
    yield database
    await database.aclose()


async def test_rebuilding_a_table_keeps_what_hangs_on_it(filled: Database, add_step: Callable[[str], None]) -> None:
    add_step(
        "with op.batch_alter_table('turns', recreate='always') as turns: turns.drop_index('ix_turns_conversation_id')"
    )
    await filled.upgrade()
    assert await filled.revision() == "next"
    await check_rows(filled)


async def test_a_step_that_loses_rows_is_taken_back(filled: Database, add_step: Callable[[str], None]) -> None:
    add_step("op.execute('DELETE FROM turns')")
    with pytest.raises(StoreError, match="point nowhere"):
        await filled.upgrade()
    assert await filled.revision() == REVISIONS[0]
    await check_rows(filled)


async def test_a_step_that_fails_is_taken_back(filled: Database, add_step: Callable[[str], None]) -> None:
    add_step("op.drop_table('turn_attachments'); raise RuntimeError('struck by lightning')")
    with pytest.raises(RuntimeError, match="lightning"):
        await filled.upgrade()
    assert await filled.revision() == REVISIONS[0]
    await check_rows(filled)
