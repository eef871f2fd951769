"""What replies were made from, and what pictures look like to the engine."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reply_origins",
        sa.Column("turn_id", sa.Integer, nullable=False),
        sa.Column("asked_turn_id", sa.Integer),
        sa.Column("persona_digest", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("turn_id", name="pk_reply_origins"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_reply_origins_turn_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["asked_turn_id"], ["turns.id"], name="fk_reply_origins_asked_turn_id", ondelete="SET NULL"
        ),
    )
    op.create_index("ix_reply_origins_asked_turn_id", "reply_origins", ["asked_turn_id"])
    op.create_table(
        "picture_embeddings",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_picture_embeddings"),
        sa.ForeignKeyConstraint(
            ["digest"], ["attachments.digest"], name="fk_picture_embeddings_digest", ondelete="CASCADE"
        ),
    )
