"""Secrets made elsewhere: by which scheme, and the slow hash that decides, where one does."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key_secrets", sa.Column("scheme", sa.Text(), nullable=True))
    op.add_column("api_key_secrets", sa.Column("foreign_hash", sa.Text(), nullable=True))
