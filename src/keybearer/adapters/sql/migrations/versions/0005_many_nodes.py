"""Many nodes: who may answer from a cache, what each change touched, which batches are written."""

import os

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE coherence RENAME COLUMN epoch TO seq")
    op.drop_column("coherence", "served_by")
    op.add_column("coherence", sa.Column("name", sa.Text(), nullable=True))
    coherence = sa.table("coherence", sa.column("name", sa.Text()))
    op.execute(sa.update(coherence).values(name=os.urandom(8).hex()))
    op.create_table(
        "invalidations",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("invalidations_pkey")),
    )
    op.create_index(op.f("invalidations_at_idx"), "invalidations", ["at"], unique=False)
    op.create_table(
        "nodes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("joined_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_ms", sa.BigInteger(), nullable=False),
        sa.Column("applied", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("suspicion", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("nodes_pkey")),
    )
    op.create_table(
        "usage_batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("written_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("usage_batches_pkey")),
    )
    op.create_index(op.f("usage_batches_written_at_idx"), "usage_batches", ["written_at"])
