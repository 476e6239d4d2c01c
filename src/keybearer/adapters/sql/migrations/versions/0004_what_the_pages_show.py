"""What the pages show: recent activity, the uses of each secret, reminders, calendars."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("reminded_days", sa.Integer(), nullable=True))
    op.create_index(op.f("api_keys_expires_at_idx"), "api_keys", ["expires_at"], unique=False)
    for column in (
        sa.Column("start", sa.Text(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_ip", sa.Text(), nullable=True),
        sa.Column("request_count", sa.BigInteger(), server_default="0", nullable=False),
    ):
        op.add_column("api_key_secrets", column)
    # Of the secrets that were replaced before, nobody knows how they began.
    op.execute(
        "UPDATE api_key_secrets SET start = (SELECT api_keys.start FROM api_keys "
        "WHERE api_keys.id = api_key_secrets.key_id) WHERE usable_until IS NULL"
    )
    op.create_table(
        "activity",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", "outcome", "slot", name=op.f("activity_pkey")),
    )
    op.create_table(
        "calendar_feeds",
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("calendar_feeds_pkey")),
        sa.UniqueConstraint("digest", name=op.f("calendar_feeds_digest_key")),
    )
