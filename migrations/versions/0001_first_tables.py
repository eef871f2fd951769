"""The first tables: rooms, conversations, turns, messages, attachments."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rooms",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("chat_id", sa.Text, nullable=False),
        sa.Column("thread_id", sa.Text),
        sa.Column("persona_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_rooms"),
    )
    op.create_index(
        "uq_rooms_thread",
        "rooms",
        ["platform", "chat_id", "thread_id"],
        unique=True,
        sqlite_where=sa.text("thread_id IS NOT NULL"),
    )
    op.create_index(
        "uq_rooms_chat", "rooms", ["platform", "chat_id"], unique=True, sqlite_where=sa.text("thread_id IS NULL")
    )
    op.create_table(
        "conversations",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("room_id", sa.Integer, nullable=False),
        sa.Column("persona_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
        sa.ForeignKeyConstraint(["room_id"], ["rooms.id"], name="fk_conversations_room_id", ondelete="CASCADE"),
        sa.UniqueConstraint("room_id", "persona_id", name="uq_conversations_room_id_persona_id"),
    )
    op.create_table(
        "turns",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("conversation_id", sa.Integer, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("author_platform", sa.Text),
        sa.Column("author_user_id", sa.Text),
        sa.Column("author_display_name", sa.Text),
        sa.Column("author_is_bot", sa.Boolean),
        sa.PrimaryKeyConstraint("id", name="pk_turns"),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_turns_conversation_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("role IN ('user', 'assistant')", name=op.f("ck_turns_role")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_turns_conversation_id", "turns", ["conversation_id"])
    op.create_table(
        "messages",
        sa.Column("room_id", sa.Integer, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("turn_id", sa.Integer),
        sa.Column("persona_id", sa.Text),
        sa.PrimaryKeyConstraint("room_id", "message_id", name="pk_messages"),
        sa.ForeignKeyConstraint(["room_id"], ["rooms.id"], name="fk_messages_room_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_messages_turn_id", ondelete="SET NULL"),
    )
    op.create_index("ix_messages_turn_id", "messages", ["turn_id"])
    op.create_table(
        "attachments",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("mime", sa.Text, nullable=False),
        sa.Column("num_bytes", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_attachments"),
    )
    op.create_table(
        "turn_attachments",
        sa.Column("turn_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("turn_id", "position", name="pk_turn_attachments"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_turn_attachments_turn_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["digest"], ["attachments.digest"], name="fk_turn_attachments_digest"),
    )
    op.create_index("ix_turn_attachments_digest", "turn_attachments", ["digest"])
