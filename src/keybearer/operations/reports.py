"""What happened: usage of a key, and the caller's audit trail."""

from typing import Annotated, Literal

import msgspec

from keybearer.adapters.sql import audit, usage
from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso
from keybearer.domain.model import ANYONE, Count
from keybearer.domain.ports import Transaction
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.ownership import named, own_key
from keybearer.operations.wire import Id, Timestamp, read_instant

_HOUR_MS = 3_600_000
_STEPS = {"hour": _HOUR_MS, "day": 24 * _HOUR_MS}
MAX_BUCKETS = 1_000


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


@operation("GET", "/api-key/usage", access=Access.OWNER, tag="API keys", management=True,
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


class AskAudit(Input, frozen=True, kw_only=True):
    """Which of the caller's events: of one kind, about one thing, a page at a time."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50
    offset: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    event: Annotated[str, msgspec.Meta(max_length=64)] = ""
    target: Annotated[str, msgspec.Meta(max_length=64)] = ""


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
    owner_id = call.session.subject
    if owner_id == ANYONE:
        raise Failure("VALIDATION_ERROR", "Name whose events to list: owner=….")

    async def body(tx: Transaction) -> tuple[list[audit.Event], int]:
        events, total = await audit.page(
            tx,
            owner_id=owner_id,
            event=asked.event,
            target_id=asked.target,
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
