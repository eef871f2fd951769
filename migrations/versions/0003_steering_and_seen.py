"""Replies that are owed, alternatives and ratings, settings of rooms, what has arrived, and what went wrong."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    rebuild_messages()
    op.create_table(
        "awaited_replies",
        sa.Column("turn_id", sa.Integer, nullable=False),
        sa.Column("persona_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("message_ids", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("turn_id", "persona_id", name="pk_awaited_replies"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_awaited_replies_turn_id", ondelete="CASCADE"),
    )
    op.create_table(
        "alternatives",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("turn_id", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("is_chosen", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alternatives"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_alternatives_turn_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_alternatives_turn_id", "alternatives", ["turn_id"])
    op.create_index(
        "uq_alternatives_chosen", "alternatives", ["turn_id"], unique=True, sqlite_where=sa.text("is_chosen")
    )
    op.create_table(
        "rating_consents",
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("is_given", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("platform", "user_id", name="pk_rating_consents"),
    )
    op.create_table(
        "ratings",
        sa.Column("alternative_id", sa.Integer, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("rating", sa.Text, nullable=False),
        sa.Column("rated_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("alternative_id", "platform", "user_id", name="pk_ratings"),
        sa.ForeignKeyConstraint(
            ["alternative_id"], ["alternatives.id"], name="fk_ratings_alternative_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("rating IN ('good', 'bad')", name=op.f("ck_ratings_rating")),
    )
    op.create_index("ix_ratings_platform_user_id", "ratings", ["platform", "user_id"])
    op.create_table(
        "room_settings",
        sa.Column("room_id", sa.Integer, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("room_id", name="pk_room_settings"),
        sa.ForeignKeyConstraint(["room_id"], ["rooms.id"], name="fk_room_settings_room_id", ondelete="CASCADE"),
    )
    op.create_table(
        "seen_events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("seen_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_seen_events"),
        sa.UniqueConstraint("platform", "event", name="uq_seen_events_platform_event"),
    )
    op.create_table(
        "seen_marks",
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("chat_id", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("seen_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("platform", "chat_id", name="pk_seen_marks"),
    )
    op.create_table(
        "incidents",
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("last_at", sa.DateTime, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("platform", "kind", name="pk_incidents"),
    )


def rebuild_messages() -> None:
    """Messages get a place among those of their turn, and the time at which they were seen."""
    op.create_table(
        "new_messages",
        sa.Column("room_id", sa.Integer, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("turn_id", sa.Integer),
        sa.Column("persona_id", sa.Text),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("seen_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("room_id", "message_id", name="pk_messages"),
        sa.ForeignKeyConstraint(["room_id"], ["rooms.id"], name="fk_messages_room_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_messages_turn_id", ondelete="SET NULL"),
    )
    # Those of one turn were written in the order in which they were shown. Of one without a turn, nobody knows when.
    op.execute(
        """
        INSERT INTO new_messages (room_id, message_id, turn_id, persona_id, position, seen_at)
        SELECT messages.room_id, messages.message_id, messages.turn_id, messages.persona_id,
               row_number() OVER (PARTITION BY messages.turn_id ORDER BY messages.rowid) - 1,
               coalesce(turns.created_at, strftime('%Y-%m-%d %H:%M:%f000', 'now'))
        FROM messages LEFT JOIN turns ON turns.id = messages.turn_id
        ORDER BY messages.rowid
        """
    )
    op.drop_table("messages")
    op.rename_table("new_messages", "messages")
    op.create_index("ix_messages_turn_id", "messages", ["turn_id"])
    op.create_index("ix_messages_seen_at", "messages", ["seen_at"], sqlite_where=sa.text("turn_id IS NULL"))
