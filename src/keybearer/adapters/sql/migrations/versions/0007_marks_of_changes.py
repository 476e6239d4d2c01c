"""A random mark of each change: a number that two changes had, one of them lost, tells nothing."""

import os

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("coherence", "invalidations"):
        op.add_column(table, sa.Column("mark", sa.BigInteger(), nullable=True))
    coherence = sa.table("coherence", sa.column("mark", sa.BigInteger()))
    op.execute(sa.update(coherence).values(mark=int.from_bytes(os.urandom(7))))
