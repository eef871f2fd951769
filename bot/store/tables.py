"""The tables: rooms and their settings, conversations, turns, the messages that turns came in, what replies were made
from, their alternatives and ratings, replies that are owed, attachments, what pictures look like to the engine, what
has arrived, and what went wrong.

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
    # Its place among the messages of its turn.
    Column("position", Integer, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
)
Index("ix_messages_seen_at", messages.c.seen_at, sqlite_where=messages.c.turn_id.is_(None))

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

# Kept with the question, gone with the reply. `message_ids`, a JSON list, show the reply so far.
awaited_replies = Table(
    "awaited_replies",
    metadata,
    Column("turn_id", ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True),
    Column("persona_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("message_ids", Text, nullable=False),
)

# The versions of a reply, in the order of their ids. A reply with a single one that nobody rated has no row; the text
# of the chosen one is also the turn's.
alternatives = Table(
    "alternatives",
    metadata,
    # Autoincrement, so that a rating never falls to a later version.
    Column("id", Integer, primary_key=True),
    Column("turn_id", ForeignKey("turns.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("is_chosen", Boolean, nullable=False),
    sqlite_autoincrement=True,
)
Index("uq_alternatives_chosen", alternatives.c.turn_id, unique=True, sqlite_where=alternatives.c.is_chosen)

rating_consents = Table(
    "rating_consents",
    metadata,
    Column("platform", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("is_given", Boolean, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

ratings = Table(
    "ratings",
    metadata,
    Column("alternative_id", ForeignKey("alternatives.id", ondelete="CASCADE"), primary_key=True),
    Column("platform", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("rating", Text, nullable=False),
    Column("rated_at", UtcDateTime, nullable=False),
    CheckConstraint("rating IN ('good', 'bad')", name="rating"),
    Index(None, "platform", "user_id"),
)

# A `bot.rooms.RoomSettings` as JSON, with only what was set.
room_settings = Table(
    "room_settings",
    metadata,
    Column("room_id", ForeignKey("rooms.id", ondelete="CASCADE"), primary_key=True),
    Column("settings", Text, nullable=False),
)

# Events that have arrived. Ids have no gaps, so that the oldest are found by counting back: with autoincrement, an
# event that comes again would leave one.
seen_events = Table(
    "seen_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("platform", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    UniqueConstraint("platform", "event"),
)

# The newest message that was seen in each chat.
seen_marks = Table(
    "seen_marks",
    metadata,
    Column("platform", Text, primary_key=True),
    Column("chat_id", Text, primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
)

# What went wrong with a platform, beside single replies. `detail` is the last one's.
incidents = Table(
    "incidents",
    metadata,
    Column("platform", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
    Column("detail", Text, nullable=False),
)
