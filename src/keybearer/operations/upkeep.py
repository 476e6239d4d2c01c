"""Work beside the requests: forget what is over for long, rotate what is due."""

from functools import partial

from keybearer.adapters.sql import (
    accounts,
    audit,
    batches,
    coherence,
    keys,
    keysecrets,
    sessions,
)
from keybearer.domain.model import ANYONE, RequestFacts, Session
from keybearer.domain.ports import Transaction
from keybearer.operations import outbox
from keybearer.operations.app import App, record
from keybearer.operations.declaration import Call

_BATCH = 500
_SCHEDULE = "schedule"
SESSIONS_KEPT_MS = 90 * 86_400_000
"""How long an ended login is kept: the addresses of past logins tell a person from a stranger."""


async def forget_ended(app: App) -> int:
    """Deletes keys, secrets, logins, links, counts and mails that ended long ago; how many.

    And the log of changes that every node has read.
    """
    now = app.clock.now()
    forgotten = await outbox.sweep(app)
    forgotten += await app.database.write(partial(accounts.sweep, now=now))
    await app.database.write(partial(coherence.forget, before=now - coherence.KEPT_MS))
    replaced = partial(keysecrets.forget_replaced, before=now - app.settings.key_retention)
    forgotten += await app.database.write(replaced)
    for forget, kept_ms in (
        (keys.forget_ended, app.settings.key_retention),
        (sessions.forget_ended, SESSIONS_KEPT_MS),
    ):
        batch = partial(forget, before=now - kept_ms, limit=_BATCH)
        while (n := await app.database.write(batch)) == _BATCH:
            forgotten += n
        forgotten += n
    written = partial(batches.forget_old, before=now - batches.KEPT_MS, limit=_BATCH)
    while await app.database.write(written) == _BATCH:
        pass
    return forgotten


async def rotate_signing(app: App) -> str | None:
    """Makes the next signing key when its time has come, and gives its kid."""
    call = scheduled(app, app.clock.now())
    return await app.signing.rotate_when_due(partial(note_rotation, call))


def scheduled(app: App, now: int) -> Call:
    """A call that nobody makes: its time has come."""
    scheduler = Session(subject=ANYONE, kind="operator", id=_SCHEDULE)
    return Call(app=app, caller=scheduler, facts=RequestFacts(id=app.new_id(now)), now=now)


def was_scheduled(event: audit.Event) -> bool:
    """Whether the event is of such a call: nobody's doing."""
    return (event.actor_kind, event.actor_id) == ("operator", _SCHEDULE)


async def note_rotation(call: Call, tx: Transaction, kid: str) -> None:
    """Tells of a new signing key, in the transaction that makes it."""
    await record(call, tx, "signing_key.rotated", owner_id=None, target_id=kid)
