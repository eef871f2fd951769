"""The tables: rooms, conversations, turns, the messages that turns came in, what replies were made from, attachments,
and what pictures look like to the engine.

Owns names, types and constraints. A change here needs a migration in `migrations/versions`, and rows for it in
`tests/migrations`. Knows no query.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment. SQLite keeps no time zone, so it is stored in UTC and given back as UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


rooms = Table(
    "rooms",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("platform", Text, nullable=False),
    Column("chat_id", Text, nullable=False),
    Column("thread_id", Text),
    Column("persona_id", Text),
)
# Two indexes, because in SQL a missing thread is never equal to another missing thread.
Index(
    "uq_rooms_thread",
    rooms.c.platform,
    rooms.c.chat_id,
    rooms.c.thread_id,
    unique=True,
    sqlite_where=rooms.c.thread_id.is_not(None),
)
Index("uq_rooms_chat", rooms.c.platform, rooms.c.chat_id, unique=True, sqlite_where=rooms.c.thread_id.is_(None))

conversations = Table(
    "conversations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("room_id", ForeignKey("rooms.id", ondelete="CASCADE"), nullable=False),
    Column("persona_id", Text, nullable=False),
    UniqueConstraint("room_id", "persona_id"),
)

turns = Table(
    "turns",
    metadata,
    # Autoincrement, so that the id of a forgotten turn is never given to another one.
    Column("id", Integer, primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("author_platform", Text),
    Column("author_user_id", Text),
    Column("author_display_name", Text),
    Column("author_is_bot", Boolean),
    CheckConstraint("role IN ('user', 'assistant')", name="role"),
    sqlite_autoincrement=True,
)

# A message outlives its turn: once seen it is never answered twice, and a reply to it still finds its persona.
messages = Table(
    "messages",
    metadata,
    Column("room_id", ForeignKey("rooms.id", ondelete="CASCADE"), primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("turn_id", ForeignKey("turns.id", ondelete="SET NULL"), index=True),
    Column("persona_id", Text),
)

attachments = Table(
    "attachments",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("mime", Text, nullable=False),
    Column("num_bytes", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
)

turn_attachments = Table(
    "turn_attachments",
    metadata,
    Column("turn_id", ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("digest", ForeignKey("attachments.digest"), nullable=False, index=True),
)

# A reply's question and persona, for whoever asks why it says what it says.
reply_origins = Table(
    "reply_origins",
    metadata,
    Column("turn_id", ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True),
    Column("asked_turn_id", ForeignKey("turns.id", ondelete="SET NULL"), index=True),
    Column("persona_digest", Text, nullable=False),
)

# Float32 numbers, little end first. They go with their picture, and only those of one space compare.
picture_embeddings = Table(
    "picture_embeddings",
    metadata,
    Column("digest", ForeignKey("attachments.digest", ondelete="CASCADE"), primary_key=True),
    Column("space", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),
)
