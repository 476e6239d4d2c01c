"""Keys made elsewhere whose secret a slow hash decides."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key_secrets", sa.Column("foreign_hash", sa.Text(), nullable=True))
