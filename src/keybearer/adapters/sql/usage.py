"""Usage counts and last uses, written in batches."""

from collections.abc import Sequence

from sqlalchemy import Text, and_, bindparam, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from keybearer.adapters.sql.tables import api_key_secrets, api_keys, sessions, usage
from keybearer.domain.model import Count, LastUse, SecretUse
from keybearer.domain.ports import Transaction

_ADD = {
    dialect: insert.on_conflict_do_update(
        index_elements=["key_id", "hour", "outcome"], set_={"n": usage.c.n + insert.excluded.n}
    )
    for dialect, insert in (
        ("sqlite", sqlite_insert(usage)),
        ("postgresql", postgres_insert(usage)),
    )
}
# Several processes write: an older use is counted, and leaves the newer one as it is.
_NEWEST = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= bindparam("at"))
_USED = (
    update(api_keys)
    .where(api_keys.c.id == bindparam("of_id"))
    .values(
        request_count=api_keys.c.request_count + bindparam("more"),
        last_used_at=case((_NEWEST, bindparam("at")), else_=api_keys.c.last_used_at),
        # A verify call need not say where the key came from: then what is known stays.
        last_used_ip=case(
            (_NEWEST, func.coalesce(bindparam("ip", type_=Text), api_keys.c.last_used_ip)),
            else_=api_keys.c.last_used_ip,
        ),
        last_used_user_agent=case(
            (
                _NEWEST,
                func.coalesce(bindparam("agent", type_=Text), api_keys.c.last_used_user_agent),
            ),
            else_=api_keys.c.last_used_user_agent,
        ),
        limit_state=bindparam("state"),
    )
)
_SEEN = (
    update(sessions)
    .where(sessions.c.id == bindparam("of_id"), sessions.c.last_seen_at < bindparam("at"))
    .values(last_seen_at=bindparam("at"))
)
_NEWEST_SECRET = or_(
    api_key_secrets.c.last_used_at.is_(None), api_key_secrets.c.last_used_at <= bindparam("at")
)
_SECRET_USED = (
    update(api_key_secrets)
    .where(api_key_secrets.c.digest == bindparam("of_digest"))
    .values(
        request_count=api_key_secrets.c.request_count + bindparam("more"),
        last_used_at=case((_NEWEST_SECRET, bindparam("at")), else_=api_key_secrets.c.last_used_at),
        last_used_ip=case(
            (
                _NEWEST_SECRET,
                func.coalesce(bindparam("ip", type_=Text), api_key_secrets.c.last_used_ip),
            ),
            else_=api_key_secrets.c.last_used_ip,
        ),
    )
)
_REPORT = (
    select(usage.c.hour, usage.c.outcome, usage.c.n)
    .where(
        usage.c.key_id == bindparam("key_id"),
        usage.c.hour >= bindparam("since"),
        usage.c.hour < bindparam("until"),
    )
    .order_by(usage.c.hour, usage.c.outcome)
)
# Keys without a count come too, with no day: so one statement also tells whose keys they are.
_DAY_MS = 86_400_000
_OWNER = bindparam("of_owner", type_=Text)
_BY_DAY = (
    select(
        api_keys.c.id,
        (usage.c.hour - usage.c.hour % _DAY_MS).label("day"),
        func.sum(usage.c.n).label("n"),
    )
    .select_from(
        api_keys.outerjoin(
            usage,
            and_(
                usage.c.key_id == api_keys.c.id,
                usage.c.hour >= bindparam("since"),
                usage.c.hour < bindparam("until"),
            ),
        )
    )
    .where(
        api_keys.c.id.in_(bindparam("ids", expanding=True)),
        or_(_OWNER.is_(None), api_keys.c.owner_id == _OWNER),
    )
    .group_by(api_keys.c.id, "day")
)


async def add(tx: Transaction, counts: Sequence[Count], *, dialect: str) -> None:
    """Adds counts to their hours. Rows come sorted, so that two batches cannot deadlock."""
    await tx.run_many(
        _ADD[dialect],
        [
            {"key_id": count.key_id, "hour": count.hour, "outcome": count.outcome, "n": count.n}
            for count in counts
        ],
    )


async def touch(
    tx: Transaction,
    keys: Sequence[LastUse],
    logins: Sequence[LastUse],
    secrets: Sequence[SecretUse],
) -> None:
    """Moves the last use of keys, their secrets and login sessions; never back."""
    await tx.run_many(
        _USED,
        [
            {
                "of_id": use.id,
                "more": use.n,
                "at": use.at,
                "ip": use.ip,
                "agent": use.user_agent,
                "state": use.limit_state,
            }
            for use in keys
        ],
    )
    await tx.run_many(
        _SECRET_USED,
        [{"of_digest": use.digest, "more": use.n, "at": use.at, "ip": use.ip} for use in secrets],
    )
    await tx.run_many(_SEEN, [{"of_id": use.id, "at": use.at} for use in logins])


async def report(tx: Transaction, key_id: str, *, since: int, until: int) -> Sequence[Count]:
    """The counts of one key, by hour and outcome."""
    rows = await tx.all(_REPORT, key_id=key_id, since=since, until=until)
    return [Count(key_id=key_id, hour=row.hour, outcome=row.outcome, n=row.n) for row in rows]


async def by_day(
    tx: Transaction, ids: Sequence[str], *, owner_id: str | None, since: int, until: int
) -> dict[str, dict[int, int]]:
    """All requests of an owner's keys by day (UTC, its first millisecond); None means anyone's."""
    rows = await tx.all(_BY_DAY, ids=list(ids), of_owner=owner_id, since=since, until=until)
    counted: dict[str, dict[int, int]] = {row.id: {} for row in rows}
    for row in rows:
        if row.day is not None:
            counted[row.id][row.day] = int(row.n)
    return counted
