"""Tell owners by mail that their keys expire.

    read a page of keys that expire ──▶ for whom is a reminder due?
    transaction, for each owner and reminder:  claim the keys + put the mail + record

A claim marks a key only where it is not marked yet, and the mail is written with it: whatever
dies, and whoever runs this beside us, a reminder is neither lost nor sent twice. Pages are read
apart, so that no transaction grows with the number of keys.
"""

from functools import partial

from keybearer.adapters.sql import accounts
from keybearer.adapters.sql import reminders as sql
from keybearer.domain import reminders
from keybearer.domain.ports import Transaction
from keybearer.operations import mails, outbox
from keybearer.operations.app import App, record
from keybearer.operations.upkeep import scheduled

_PAGE = 500
_IN_ONE_MAIL = 100


async def remind(app: App) -> int:
    """Writes the reminders that are due, and gives how many mails; none to a host's users."""
    if not app.accounts:
        return 0
    now, written = app.clock.now(), 0
    after, until = (now - reminders.LATE_MS, ""), now + reminders.FIRST_MS
    while True:
        page = await app.database.read(partial(sql.expiring, after=after, until=until, limit=_PAGE))
        for owner_id, days in _told(page, now):
            while await _remind(app, owner_id, days, now):
                written += 1
        if len(page) < _PAGE:
            return written
        after = (page[-1].expires_at, page[-1].id)


def _told(page: list[sql.Expiring], now: int) -> list[tuple[str, int]]:
    """Whom to tell, and of which reminder, each pair once."""
    found = (
        (
            key.owner_id,
            reminders.due(expires_at=key.expires_at, reminded_days=key.reminded_days, now=now),
        )
        for key in page
    )
    return list(dict.fromkeys((owner_id, days) for owner_id, days in found if days is not None))


async def _remind(app: App, owner_id: str, days: int, now: int) -> bool:
    """Writes one mail, about as many keys as go into one; False where none is due any more."""
    call = scheduled(app, now)

    async def body(tx: Transaction) -> bool:
        user = await accounts.user_by_id(tx, owner_id)
        if user is None or user.disabled_at is not None or user.email_verified_at is None:
            return False
        span = reminders.span(days, now)
        keys = await sql.claim(tx, owner_id, days=days, span=span, limit=_IN_ONE_MAIL)
        if not keys:
            return False
        write = mails.keys_expire if days else mails.keys_expired
        await outbox.put(call, tx, write(app, user, keys, now))
        for key in keys:
            await record(
                call, tx, "key.expiry_reminded", owner_id=owner_id, target_id=key.id, days=days
            )
        return True

    written = await app.database.write(body)
    if written:
        app.wake_mail()
    return written
