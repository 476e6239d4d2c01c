"""Keys that were deleted: revoked, and taken out of the list."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "api_keys",
        sa.Column("deleted", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
