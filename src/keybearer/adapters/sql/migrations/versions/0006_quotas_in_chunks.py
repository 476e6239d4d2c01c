"""Quotas in chunks: to which setting or refill of a quota a unit belongs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "api_keys",
        sa.Column("quota_version", sa.BigInteger(), server_default="0", nullable=False),
    )
