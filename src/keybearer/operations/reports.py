"""What happened: usage and activity of keys, and the caller's audit trail."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from keybearer.adapters.sql import activity, audit, usage
from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso
from keybearer.domain.model import ANYONE
from keybearer.domain.ports import Transaction
from keybearer.domain.uses import Count, Sample
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.ownership import named, own_key
from keybearer.operations.wire import Id, Timestamp, read_instant

TAG = "API keys"
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_STEPS = {"hour": _HOUR_MS, "day": _DAY_MS}
MAX_BUCKETS = 1_000
MAX_KEYS = 100


class AskUsage(Input, frozen=True, kw_only=True):
    """Whose usage, from when to when (ISO 8601; the last 24 hours or 30 days), in which steps.

    A key that asks about itself needs no id.
    """

    key_id: Id | None = None
    since: str | None = msgspec.field(name="from", default=None)
    until: str | None = msgspec.field(name="to", default=None)
    interval: Literal["hour", "day"] = "hour"


class UsageBucket(Output, frozen=True, kw_only=True):
    """One hour or day (UTC): how many requests had which outcome."""

    start: Timestamp
    counts: dict[str, int]


class UsageReport(Output, frozen=True, kw_only=True):
    """Counts by outcome: `accepted`, or the code of a refusal; empty steps are left out."""

    key_id: str
    since: Timestamp = msgspec.field(name="from")
    until: Timestamp = msgspec.field(name="to")
    interval: str
    total: dict[str, int]
    buckets: list[UsageBucket]


@operation("GET", "/api-key/usage", access=Access.OWNER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND",))  # fmt: skip
async def get_usage(call: Call, asked: AskUsage) -> UsageReport:
    """Counts the requests of a key, by hour or day (UTC) and outcome.

    With an API key as credential it counts that key's.
    """
    id = named(call, asked.key_id)
    step = _STEPS[asked.interval]
    until = call.now + 1 if asked.until is None else read_instant(asked.until, "to")
    span = step * (24 if asked.interval == "hour" else 30)
    since = until - span if asked.since is None else read_instant(asked.since, "from")
    since -= since % step
    if since >= until:
        raise Failure("VALIDATION_ERROR", "from must lie before to.")
    if (until - since) / step > MAX_BUCKETS:
        raise Failure("VALIDATION_ERROR", f"Ask for {MAX_BUCKETS} steps at most.")
    await call.app.verifier.usage.flush(call.now)

    async def body(tx: Transaction) -> list[Count]:
        key = await own_key(call, tx, id)
        return list(await usage.report(tx, key.id, since=since, until=until))

    buckets: dict[int, dict[str, int]] = {}
    total: dict[str, int] = {}
    for count in await call.app.database.read(body):
        counts = buckets.setdefault(count.hour - count.hour % step, {})
        counts[count.outcome] = counts.get(count.outcome, 0) + count.n
        total[count.outcome] = total.get(count.outcome, 0) + count.n
    return UsageReport(
        key_id=id,
        since=iso(since),
        until=iso(until),
        interval=asked.interval,
        total=total,
        buckets=[UsageBucket(start=iso(start), counts=counts) for start, counts in buckets.items()],
    )


class AskDailyUsage(Input, frozen=True, kw_only=True):
    """Whose usage, and of how many days up to today; `keyId` may stand up to 100 times."""

    key_id: Annotated[tuple[Id, ...], msgspec.Meta(max_length=MAX_KEYS)] = ()
    days: Annotated[int, msgspec.Meta(ge=1, le=90)] = 30


class DailyUsage(Output, frozen=True, kw_only=True):
    """For each key one number a day (UTC) from `since` on: `days` of them, the last is today's."""

    since: Timestamp
    days: int
    keys: dict[str, list[int]]


@operation("GET", "/api-key/daily-usage", access=Access.MANAGER, tag=TAG, management=True)
async def daily_usage(call: Call, asked: AskDailyUsage) -> DailyUsage:
    """Counts the requests of many keys by day, whatever their outcome: for small charts.

    A key that is not the caller's is left out.
    """
    today = call.now - call.now % _DAY_MS
    since = today - (asked.days - 1) * _DAY_MS
    await call.app.verifier.usage.flush(call.now)

    async def body(tx: Transaction) -> dict[str, dict[int, int]]:
        return await usage.by_day(
            tx,
            asked.key_id,
            owner_id=call.speaks_for,
            since=since,
            until=today + _DAY_MS,
        )

    counted = await call.app.database.read(body)
    starts = range(since, today + 1, _DAY_MS)
    return DailyUsage(
        since=iso(since),
        days=asked.days,
        keys={id: [days.get(start, 0) for start in starts] for id, days in counted.items()},
    )


class AskActivity(Input, frozen=True, kw_only=True):
    """What happened lately to which key; a key that asks about itself needs no id."""

    key_id: Id | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50


class ActivityEvent(Output, frozen=True, kw_only=True):
    """How many requests of one minute had one outcome, and when and whence the last of them came.

    `outcome` is `accepted`, or the code of a refusal.
    """

    at: Timestamp
    outcome: str
    count: int
    ip: str | None
    user_agent: str | None


class KeyActivity(Output, frozen=True, kw_only=True):
    """What happened lately to a key, newest first."""

    key_id: str
    events: list[ActivityEvent]


@operation("GET", "/api-key/activity", access=Access.OWNER, tag=TAG, management=True,
           errors=("KEY_NOT_FOUND",))  # fmt: skip
async def list_activity(call: Call, asked: AskActivity) -> KeyActivity:
    """Tells what happened lately to a key: uses, and refusals with their reasons.

    The requests of one minute that had the same outcome are one event. Of each outcome the last
    hour in which the key was used is kept. With an API key as credential it tells of that key.
    """
    id = named(call, asked.key_id)
    await call.app.verifier.usage.flush(call.now)

    async def body(tx: Transaction) -> list[Sample]:
        key = await own_key(call, tx, id)
        return list(await activity.recent(tx, key.id, limit=asked.limit))

    return KeyActivity(
        key_id=id,
        events=[
            ActivityEvent(
                at=iso(sample.at),
                outcome=sample.outcome,
                count=sample.n,
                ip=sample.ip,
                user_agent=sample.user_agent,
            )
            for sample in await call.app.database.read(body)
        ],
    )


class AskAudit(Input, frozen=True, kw_only=True):
    """Which of the caller's events, a page at a time.

    `event` is one name, or with a dot at its end all that begin so: `key.`, `session.`. `from`
    (included) and `to` (not) are in ISO 8601.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50
    offset: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    event: Annotated[str, msgspec.Meta(max_length=64)] = ""
    target: Annotated[str, msgspec.Meta(max_length=64)] = ""
    outcome: Literal["success", "refused"] | UnsetType = UNSET
    since: str | None = msgspec.field(name="from", default=None)
    until: str | None = msgspec.field(name="to", default=None)


class AuditEvent(Output, frozen=True, kw_only=True):
    """Who did what to what, when, from where, and how it ended."""

    id: str
    at: Timestamp
    event: str
    outcome: str
    actor_kind: str
    actor_id: str | None
    target_id: str | None
    ip: str | None
    user_agent: str | None
    request_id: str | None
    details: dict[str, str | int | bool | None]


class AuditPage(Output, frozen=True, kw_only=True):
    """A page of events, newest first; `total` counts before paging."""

    events: list[AuditEvent]
    total: int
    limit: int
    offset: int


@operation("GET", "/audit", access=Access.SESSION, tag="Audit")
async def list_audit(call: Call, asked: AskAudit) -> AuditPage:
    """Lists the caller's own events, newest first."""
    owner_id = own_trail(call)
    between: dict[str, int] = {}
    if asked.since is not None:
        between["since"] = read_instant(asked.since, "from")
    if asked.until is not None:
        between["until"] = read_instant(asked.until, "to")
    if len(between) == 2 and between["since"] >= between["until"]:
        raise Failure("VALIDATION_ERROR", "from must lie before to.")

    async def body(tx: Transaction) -> tuple[list[audit.Event], int]:
        events, total = await audit.page(
            tx,
            owner_id=owner_id,
            event=asked.event,
            target_id=asked.target,
            outcome="" if asked.outcome is UNSET else asked.outcome,
            **between,
            limit=asked.limit,
            offset=asked.offset,
        )
        return list(events), total

    events, total = await call.app.database.read(body)
    return AuditPage(
        events=[audit_event(event) for event in events],
        total=total,
        limit=asked.limit,
        offset=asked.offset,
    )


def own_trail(call: Call) -> str:
    """Whose trail the caller may see, by the owner's id.

    Raises:
        Failure: VALIDATION_ERROR for the app itself that names nobody.
    """
    owner_id = call.session.subject
    if owner_id == ANYONE:
        raise Failure("VALIDATION_ERROR", "Name whose events you mean: owner=….")
    return owner_id


def audit_event(event: audit.Event) -> AuditEvent:
    """An event for the wire."""
    return AuditEvent(
        id=event.id,
        at=iso(event.at),
        event=event.event,
        outcome=event.outcome,
        actor_kind=event.actor_kind,
        actor_id=event.actor_id,
        target_id=event.target_id,
        ip=event.ip,
        user_agent=event.user_agent,
        request_id=event.request_id,
        details=event.details,
    )


OF_KEYS = (get_usage, daily_usage, list_activity)
