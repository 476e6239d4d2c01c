"""“This wasn't me”: end what an event of one's own trail names.

session.*           the login, with its refresh family
key.*               the key
calendar.created    the address of the calendar that was made then
others              nothing: it is only noted

What the server did itself, since its time had come (key.expiry_reminded), was nobody's doing: it
ends nothing either.
"""

from typing import Annotated, Literal

import msgspec

from keybearer.adapters.sql import audit, keys, sessions
from keybearer.domain.errors import Failure
from keybearer.domain.ports import Transaction
from keybearer.operations.app import record
from keybearer.operations.calendar import end_address
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.logins import end_logins
from keybearer.operations.reports import own_trail
from keybearer.operations.upkeep import was_scheduled

DISOWNED = "event.disowned"
REASON = "disowned by its owner"
"""Of the keys and the calendar that are revoked here."""

Ended = Literal["session", "key", "calendar"]


class DisownEvent(Input, frozen=True, kw_only=True):
    """Which of the caller's events was somebody else's doing."""

    event_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Disowned(Output, frozen=True, kw_only=True):
    """What the event named, and has ended now or before; null where it names none of these.

    `id` is null for a calendar: there is one of it.
    """

    ended: Ended | None
    id: str | None


@operation("POST", "/audit/disown", access=Access.SESSION, tag="Audit", session="ends",
           errors=("EVENT_NOT_FOUND",))  # fmt: skip
async def disown_event(call: Call, asked: DisownEvent) -> Disowned:
    """Ends what one of the caller's own events names: “this wasn't me”.

    An event of a login ends that login with its tokens, also the caller's own; an event of a key
    revokes the key; that of a new calendar address takes this address away. Any other ends nothing,
    and is noted, and so is what the server did itself. Doing it again changes nothing.
    """
    owner_id = own_trail(call)

    async def body(tx: Transaction) -> Disowned:
        event = await audit.by_id(tx, asked.event_id, owner_id=owner_id)
        if event is None:
            raise Failure("EVENT_NOT_FOUND")
        named = _named(event)
        if named.ended == "key":
            await _revoke(call, tx, owner_id, named.id or "")
        elif named.ended == "session":
            await _log_out(call, tx, owner_id, named.id or "")
        elif named.ended == "calendar":
            # Of that instant alone: a newer one may be the owner's own, made since.
            await end_address(call, tx, owner_id, made_at=event.at, reason=REASON)
        await audit.lock(tx, owner_id)
        _, noted = await audit.page(
            tx, owner_id=owner_id, event=DISOWNED, target_id=event.id, limit=1
        )
        if not noted:
            await record(
                call, tx, DISOWNED, owner_id=owner_id, target_id=event.id, named=event.event
            )
        return named

    disowned, _ = await call.app.change(body, _tags)
    if disowned.ended == "session" and disowned.id == call.session.session_id:
        call.reply.session = "end"
    return disowned


def _named(event: audit.Event) -> Disowned:
    noun = event.event.partition(".")[0]
    if was_scheduled(event):
        return Disowned(ended=None, id=None)
    if noun == "key":
        return Disowned(ended="key", id=event.target_id)
    if noun == "session":
        return Disowned(ended="session", id=event.target_id)
    if event.event == "calendar.created":
        return Disowned(ended="calendar", id=None)
    return Disowned(ended=None, id=None)


async def _revoke(call: Call, tx: Transaction, owner_id: str, id: str) -> None:
    # By the owner as well: what a trail says is no reason to end anything of others.
    found = await keys.lock_many(tx, [id], owner_id=owner_id, now=call.now)
    if found and await keys.revoke(tx, id, now=call.now, reason=REASON):
        await record(call, tx, "key.revoked", owner_id=owner_id, target_id=id, reason=REASON)


async def _log_out(call: Call, tx: Transaction, owner_id: str, id: str) -> None:
    login = await sessions.by_id(tx, id, lock=True)
    if login is not None and login.user_id == owner_id:
        await end_logins(call, tx, owner_id, [id])


def _tags(disowned: Disowned) -> tuple[str, ...]:
    return () if disowned.id is None else (f"{disowned.ended}:{disowned.id}",)


OPERATIONS = (disown_event,)
