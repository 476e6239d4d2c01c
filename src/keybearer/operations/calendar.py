"""When the caller's keys expire, as a calendar to subscribe to.

    https://auth.example.com/api/auth/calendar/kbc_….ics

Calendar programs cannot log in: the address itself is the secret. It is shown once, stored as
digest, masked in logs and problems, and opens nothing but this list. A new one replaces it.
"""

from functools import partial
from typing import Any

from keybearer.adapters import calendars
from keybearer.adapters.sql import accounts
from keybearer.adapters.sql import calendars as sql
from keybearer.domain.credentials import CALENDAR_PREFIX, mint, well_formed
from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso
from keybearer.domain.model import ANYONE
from keybearer.domain.ports import Transaction
from keybearer.domain.reminders import LATE_MS
from keybearer.operations.app import App, record
from keybearer.operations.declaration import Access, Call, Empty, Input, Output, operation
from keybearer.operations.links import key_page
from keybearer.operations.wire import Success, Timestamp, instant, one_line
from keybearer.verification.owners import owner_state

TAG = "API keys"
MOST_ENTRIES = 1_000
"""That a calendar has: those that expire next."""


class CalendarAddress(Output, frozen=True, kw_only=True):
    """Where the calendar is: the only time it is shown."""

    url: str
    created_at: Timestamp

    def __repr__(self) -> str:
        return "CalendarAddress(…)"


class CalendarState(Output, frozen=True, kw_only=True):
    """Whether there is a calendar, and since when it has its address."""

    active: bool
    created_at: Timestamp | None


class ReadCalendar(Input, frozen=True, kw_only=True):
    """What stands in the calendar's address, without `.ics`."""

    token: str


@operation("POST", "/calendar/create", access=Access.SESSION, tag=TAG, management=True,
           secret=True, errors=("NOT_FOUND",))  # fmt: skip
async def create_calendar(call: Call, asked: Empty) -> CalendarAddress:
    """Makes the address of a calendar that says when the caller's keys expire.

    Whoever has it can read the names and starts of the keys and when they expire, and nothing
    else. It is shown once; a new one replaces it.
    """
    if not calendars.installed():
        raise Failure("NOT_FOUND", "This server has no calendars: it lacks the extra `ui`.")
    owner_id = _owner(call)
    token = mint(CALENDAR_PREFIX, call.app.entropy)
    digest = call.app.ring.digest(token.reveal().encode())

    async def body(tx: Transaction) -> None:
        await sql.put(tx, owner_id, digest=digest, now=call.now)
        await record(call, tx, "calendar.created", owner_id=owner_id)

    await call.app.database.write(body)
    return CalendarAddress(
        url=f"{call.app.api}/calendar/{token.reveal()}.ics", created_at=iso(call.now)
    )


@operation("POST", "/calendar/revoke", access=Access.SESSION, tag=TAG, management=True)
async def revoke_calendar(call: Call, asked: Empty) -> Success:
    """Takes the address of the caller's calendar away: it answers 404 from now on."""
    owner_id = _owner(call)

    await call.app.database.write(lambda tx: end_address(call, tx, owner_id))
    return Success()


async def end_address(
    call: Call, tx: Transaction, owner_id: str, *, made_at: int | None = None, **details: Any
) -> None:
    """Takes an owner's address away, whichever there is or the one made at that instant alone."""
    if await sql.forget(tx, owner_id, made_at=made_at):
        await record(call, tx, "calendar.revoked", owner_id=owner_id, **details)


@operation("GET", "/calendar", access=Access.SESSION, tag=TAG, management=True)
async def get_calendar(call: Call, asked: Empty) -> CalendarState:
    """Tells whether the caller's calendar has an address, never which."""
    made_at = await call.app.database.read(partial(sql.made_at, owner_id=_owner(call)))
    return CalendarState(active=made_at is not None, created_at=instant(made_at))


@operation("GET", "/calendar/{token}.ics", access=Access.PUBLIC, tag=TAG, management=True,
           errors=("NOT_FOUND",), media_type=calendars.MEDIA_TYPE)  # fmt: skip
async def read_calendar(call: Call, asked: ReadCalendar) -> str:
    """The calendar itself, for the programs that subscribe to it.

    An event for each key that expires, with a link to its rotation and an alarm seven days
    before; keys that have expired stay for 30 days. In the owner's language.
    """
    token = asked.token.encode("utf-8", "surrogatepass")
    if not calendars.installed() or not well_formed(token, (CALENDAR_PREFIX.encode(),)):
        raise Failure("NOT_FOUND")

    async def body(tx: Transaction) -> tuple[str | None, list[sql.Dated]]:
        owner_id = await sql.owner_of(tx, call.app.ring.digests(token))
        if owner_id is None:
            raise Failure("NOT_FOUND")
        locale = await _locale_of(call.app, tx, owner_id)
        since = call.now - LATE_MS
        return locale, await sql.dated(tx, owner_id, since=since, limit=MOST_ENTRIES)

    return _calendar(call.app, *await call.app.database.read(body), now=call.now)


async def _locale_of(app: App, tx: Transaction, owner_id: str) -> str | None:
    """What the owner reads.

    Raises:
        Failure: NOT_FOUND, when the owner is one of our users and not active.
    """
    if not app.accounts:
        return None
    user = await accounts.user_by_id(tx, owner_id)
    must_verify = app.settings.require_email_verification
    if user is None or owner_state(user, must_verify=must_verify) != "active":
        raise Failure("NOT_FOUND")
    return user.locale


def _calendar(app: App, locale: str | None, keys: list[sql.Dated], *, now: int) -> str:
    say = app.language(locale)

    def entry(key: sql.Dated) -> calendars.Entry:
        over = key.expires_at <= now
        link = key_page(app, say.tag, key.id, expired=over)
        if over:
            words = say("Starts with {start}. It has expired: {link}")
        else:
            words = say("Starts with {start}. If you still need it, renew it before then: {link}")
        return calendars.Entry(
            id=key.id,
            at=key.expires_at,
            changed_at=key.updated_at,
            summary=say("API key “{name}” expires").format(
                name=one_line(key.name or f"{key.start}…")
            ),
            description=words.format(start=key.start, link=link),
            url=link,
        )

    name = say("API keys at {site}").format(site=app.settings.base_url)
    return calendars.render(name, map(entry, keys))


def _owner(call: Call) -> str:
    owner_id = call.session.subject
    if owner_id == ANYONE:
        raise Failure("VALIDATION_ERROR", "Name whose calendar: owner=….")
    return owner_id


OPERATIONS = (create_calendar, revoke_calendar, get_calendar, read_calendar)
