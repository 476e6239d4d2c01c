"""Usage counts and last uses, written in batches."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    LargeBinary,
    Text,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from keybearer.adapters.sql.rows import Lock, Statements, as_table, run_rows, told
from keybearer.adapters.sql.tables import api_key_secrets, api_keys, sessions, usage
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Count, LastUse, SecretUse


def _adding(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=["key_id", "hour", "outcome"], set_={"n": usage.c.n + insert.excluded.n}
    )


_COUNTS = as_table(usage)
_ADD: Statements = {
    "sqlite": _adding(sqlite_insert(usage)),
    "postgresql": _adding(
        postgres_insert(usage).from_select([each.name for each in usage.c], select(_COUNTS))
    ),
}


def _used(at: Any, more: Any, ip: Any, agent: Any, state: Any) -> dict[str, Any]:
    # Several processes write, and what waited on a disk comes late: an older use is counted, and
    # leaves the newer one as it is. The state of the limit goes with the use: of several nodes
    # the one that saw the key last knows the most.
    known = api_keys.c.last_used_at
    newest = or_(known.is_(None), known <= at)
    # A verify call need not say where the key came from: then what is known stays.
    told_ip = func.coalesce(ip, api_keys.c.last_used_ip)
    told_agent = func.coalesce(agent, api_keys.c.last_used_user_agent)
    return {
        "request_count": api_keys.c.request_count + more,
        "last_used_at": case((newest, at), else_=known),
        "last_used_ip": case((newest, told_ip), else_=api_keys.c.last_used_ip),
        "last_used_user_agent": case((newest, told_agent), else_=api_keys.c.last_used_user_agent),
        "limit_state": case((newest, state), else_=api_keys.c.limit_state),
    }


_KEYS = told(of_id=Text, at=BigInteger, more=BigInteger, ip=Text, agent=Text, state=LargeBinary)
_USED: Statements = {
    "sqlite": update(api_keys)
    .where(api_keys.c.id == bindparam("of_id"))
    .values(
        _used(
            bindparam("at"),
            bindparam("more"),
            bindparam("ip", type_=Text),
            bindparam("agent", type_=Text),
            bindparam("state", type_=LargeBinary),
        )
    ),
    "postgresql": update(api_keys)
    .where(api_keys.c.id == _KEYS.c.of_id)
    .values(_used(_KEYS.c.at, _KEYS.c.more, _KEYS.c.ip, _KEYS.c.agent, _KEYS.c.state)),
}


def _secret_used(at: Any, more: Any, ip: Any) -> dict[str, Any]:
    known = api_key_secrets.c.last_used_at
    newest = or_(known.is_(None), known <= at)
    told_ip = func.coalesce(ip, api_key_secrets.c.last_used_ip)
    return {
        "request_count": api_key_secrets.c.request_count + more,
        "last_used_at": case((newest, at), else_=known),
        "last_used_ip": case((newest, told_ip), else_=api_key_secrets.c.last_used_ip),
    }


_SECRETS = told(of_digest=LargeBinary, at=BigInteger, more=BigInteger, ip=Text)
_SECRET_USED: Statements = {
    "sqlite": update(api_key_secrets)
    .where(api_key_secrets.c.digest == bindparam("of_digest"))
    .values(_secret_used(bindparam("at"), bindparam("more"), bindparam("ip", type_=Text))),
    "postgresql": update(api_key_secrets)
    .where(api_key_secrets.c.digest == _SECRETS.c.of_digest)
    .values(_secret_used(_SECRETS.c.at, _SECRETS.c.more, _SECRETS.c.ip)),
}
_LOGINS = told(of_id=Text, at=BigInteger)
_SEEN: Statements = {
    "sqlite": update(sessions)
    .where(sessions.c.id == bindparam("of_id"), sessions.c.last_seen_at < bindparam("at"))
    .values(last_seen_at=bindparam("at")),
    "postgresql": update(sessions)
    .where(sessions.c.id == _LOGINS.c.of_id, sessions.c.last_seen_at < _LOGINS.c.at)
    .values(last_seen_at=_LOGINS.c.at),
}
_LOCK_KEYS = Lock(api_keys.c.id, "of_id")
_LOCK_SECRETS = Lock(api_key_secrets.c.digest, "of_digest")
_LOCK_LOGINS = Lock(sessions.c.id, "of_id")
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
    rows = [
        {"key_id": count.key_id, "hour": count.hour, "outcome": count.outcome, "n": count.n}
        for count in counts
    ]
    await run_rows(tx, _ADD, rows, dialect=dialect)


async def touch(
    tx: Transaction,
    keys: Sequence[LastUse],
    logins: Sequence[LastUse],
    secrets: Sequence[SecretUse],
    *,
    dialect: str,
) -> None:
    """Moves the last use of keys, their secrets and login sessions; never back.

    In this order, as changes of keys lock them: so neither waits for the other in a circle.
    """
    for lock, statements, rows in (
        (
            _LOCK_KEYS,
            _USED,
            [
                {
                    "of_id": use.id,
                    "at": use.at,
                    "more": use.n,
                    "ip": use.ip,
                    "agent": use.user_agent,
                    "state": use.limit_state,
                }
                for use in keys
            ],
        ),
        (
            _LOCK_SECRETS,
            _SECRET_USED,
            [
                {"of_digest": use.digest, "at": use.at, "more": use.n, "ip": use.ip}
                for use in secrets
            ],
        ),
        (_LOCK_LOGINS, _SEEN, [{"of_id": use.id, "at": use.at} for use in logins]),
    ):
        await run_rows(tx, statements, rows, dialect=dialect, lock=lock)


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
