"""What an import brought; what came before is told by the audit trail."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_CAME = sa.text(
    "SELECT event, target_id, details FROM audit"
    " WHERE event IN ('user.imported', 'key.imported', 'session.imported')"
)


def upgrade() -> None:
    imported = op.create_table(
        "imported",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("sort", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("origin", "sort", "id", name=op.f("imported_pkey")),
    )
    came = {
        (json.loads(row.details)["origin"], row.event.partition(".")[0], row.target_id)
        for row in op.get_bind().execute(_CAME)
    }
    rows = [{"origin": origin, "sort": sort, "id": id} for origin, sort, id in sorted(came)]
    if rows:
        op.bulk_insert(imported, rows)
