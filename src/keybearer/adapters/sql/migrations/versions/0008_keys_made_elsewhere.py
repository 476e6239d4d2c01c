"""Keys made elsewhere: by which digests they are found."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "foreign_schemes",
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scheme", name=op.f("foreign_schemes_pkey")),
    )
