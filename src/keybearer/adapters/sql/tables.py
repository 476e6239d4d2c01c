"""Every table, once: SQLite and PostgreSQL get the same columns.

Instants are BIGINT milliseconds since the epoch, UTC; ids are UUIDv7 text; digests are bytes.
`migrations/` brings a database to this picture; a test compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    false,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("image", Text),
    Column("role", Text, nullable=False),
    Column("locale", Text),
    Column("email_verified_at", BigInteger),
    Column("disabled_at", BigInteger),
    Column("password_hash", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# A login. `token_digest` is NULL where only tokens were given out (POST /login).
sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False, index=True),
    Column("token_digest", LargeBinary, unique=True),
    Column("client_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
    Column("authenticated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("idle_ms", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("ip", Text),
    Column("user_agent", Text),
)

# One row a family: the generation says which token is the live one (domain/credentials.py).
refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("family", Text, primary_key=True),
    Column("session_id", Text, nullable=False, index=True),
    Column("user_id", Text, nullable=False, index=True),
    Column("seed", LargeBinary, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("rotated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("absolute_expires_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text, nullable=False),
    Column("config_id", Text, nullable=False),
    Column("name", Text),
    Column("description", Text),
    Column("prefix", Text, nullable=False),
    Column("start", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("revoked_reason", Text),
    # Revoked under the name of Better Auth: in no list, unless revoked keys are asked for.
    Column("deleted", Boolean, nullable=False, server_default=false()),
    Column("permissions", Text),
    Column("metadata", Text),
    Column("ip_allow", Text),
    Column("rate_limit_enabled", Boolean, nullable=False),
    Column("rate_limit_max", BigInteger),
    Column("rate_limit_window_ms", BigInteger),
    Column("limit_state", LargeBinary),
    Column("remaining", BigInteger),
    # Moves whenever `remaining` is set or refilled: units that were taken before never come back.
    Column("quota_version", BigInteger, nullable=False, server_default="0"),
    Column("refill_amount", BigInteger),
    Column("refill_interval_ms", BigInteger),
    Column("last_refill_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("last_used_ip", Text),
    Column("last_used_user_agent", Text),
    Column("request_count", BigInteger, nullable=False),
    Column("idempotency", LargeBinary, unique=True),
    Column("idempotent_request", LargeBinary),
    # The last reminder of its expiry that was sent or is past: so many days before it.
    Column("reminded_days", Integer),
    Index(None, "owner_id", "created_at"),
    Index(None, "expires_at"),
)

# Several live secrets for one key while it rotates: the old ones have `usable_until`. Their uses
# are counted apart while the key rotates, and `start` is what a cancelled rotation gives back.
api_key_secrets = Table(
    "api_key_secrets",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("key_id", Text, ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("pepper_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("usable_until", BigInteger),
    Column("start", Text),
    Column("last_used_at", BigInteger),
    Column("last_used_ip", Text),
    Column("request_count", BigInteger, nullable=False, server_default="0"),
    # Of a secret made elsewhere: by what it is found, or was until its first use.
    Column("scheme", Text),
    # Of one that is found by its name, until its first use: what decides.
    Column("foreign_hash", Text),
)

service_tokens = Table(
    "service_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

usage = Table(
    "usage",
    metadata,
    Column("key_id", Text, nullable=False),
    Column("hour", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("n", BigInteger, nullable=False),
    PrimaryKeyConstraint("key_id", "hour", "outcome"),
)

# What happened lately, one row for a minute, in 61 slots that are overwritten (sql/activity.py).
activity = Table(
    "activity",
    metadata,
    Column("key_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("minute", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("ip", Text),
    Column("user_agent", Text),
    PrimaryKeyConstraint("key_id", "outcome", "slot"),
)

# The address of an owner's calendar holds a token; here is its digest.
calendar_feeds = Table(
    "calendar_feeds",
    metadata,
    Column("owner_id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

# Hash-chained: `mac` covers the row and the mac before it in its chain (sql/audit.py).
audit = Table(
    "audit",
    metadata,
    Column("chain", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text),
    Column("owner_id", Text),
    Column("target_id", Text),
    Column("ip", Text),
    Column("user_agent", Text),
    Column("request_id", Text),
    Column("details", Text, nullable=False),
    Column("pepper_id", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    PrimaryKeyConstraint("chain", "seq"),
    Index(None, "owner_id", "at"),
    Index(None, "target_id", "at"),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("chain", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("activates_at", BigInteger, nullable=False),
    Column("retires_at", BigInteger),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Text, primary_key=True),
    Column("recipient", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("next_attempt_at", BigInteger, index=True),
    Column("attempts", Integer, nullable=False),
    Column("sent_at", BigInteger),
    Column("error", Text),
)

one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("user_id", Text, nullable=False, index=True),
    Column("email", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# Attempts of one bucket (an account, an address …), named by keyed digest.
throttles = Table(
    "throttles",
    metadata,
    Column("bucket", LargeBinary, primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("open_at", BigInteger, nullable=False),
)

# One row: the number of the last change that verdicts depend on (verification/coherence.py), the
# random mark of that change, and a name that no other database has.
coherence = Table(
    "coherence",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("name", Text),
    Column("mark", BigInteger),
)

# What each of the last changes touched, its tags with spaces between, and which node made it.
invalidations = Table(
    "invalidations",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("tags", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
    Column("mark", BigInteger),
)

# The members: who may answer from a cache, for `lease_ms` after each look at the log. One that is
# under suspicion may not, until it says that it is there.
nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("address", Text, nullable=False),
    Column("joined_at", BigInteger, nullable=False),
    Column("lease_ms", BigInteger, nullable=False),
    Column("applied", BigInteger, nullable=False, server_default="0"),
    Column("suspicion", BigInteger),
)

# The batches of usage that were written: one that is told twice is written once.
usage_batches = Table(
    "usage_batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("written_at", BigInteger, nullable=False, index=True),
)

# In which ways keys that were made elsewhere are found (domain/foreign.py); without a row, none.
foreign_schemes = Table(
    "foreign_schemes",
    metadata,
    Column("scheme", Text, primary_key=True),
)

# What an import brought, whatever became of it here: what was deleted does not come again.
imported = Table(
    "imported",
    metadata,
    Column("origin", Text, nullable=False),
    Column("sort", Text, nullable=False),
    Column("id", Text, nullable=False),
    PrimaryKeyConstraint("origin", "sort", "id"),
)
