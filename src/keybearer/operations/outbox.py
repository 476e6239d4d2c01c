"""Mail goes out after the commit that it tells of, at least once, and is never lost.

    transaction: change + put ──commit──▶ deliver: claim ─ send ─┬─ sent
                                             ▲                   ├─ failed: 1 m, 5 m, 30 m … later
                                             └───────────────────┘ refused for good, or 7 days: over

No request waits for a mail server, and none tells by its time whether a mail was written. A
claim ends by itself: when the process dies between sending and noting it, the mail goes twice.

Texts hold links, and links are secrets: they are sealed under SECRET, as a copy of the database
or its write-ahead log keeps what was emptied since.
"""

import asyncio
import hmac
import logging
from functools import partial
from typing import Protocol

import msgspec

from keybearer.adapters.mail import Mail, MailFailed
from keybearer.adapters.sql import outbox
from keybearer.adapters.sql.outbox import Letter
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Unavailable
from keybearer.domain.jwt import SealBroken, seal, unseal
from keybearer.domain.ports import Transaction
from keybearer.operations.app import App
from keybearer.operations.declaration import Call

log = logging.getLogger(__name__)

AT_ONCE = 10
CLAIM_MS = 600_000
BACKOFF_MS = (60_000, 300_000, 1_800_000, 7_200_000, 21_600_000, 86_400_000)
"""How long the next attempt waits after the 1st, 2nd … one that failed; then a day each."""

GIVE_UP_MS = 7 * 86_400_000
SHOWN_MS = 86_400_000
KEPT_MS = 30 * 86_400_000
KEPT_FAILED_MS = 90 * 86_400_000


class Sender(Protocol):
    """Hands one mail over; blocks (adapters/mail.py)."""

    def send(self, mail: Mail) -> None:
        """Raises MailFailed, or ValueError for what is no mail."""
        ...


async def put(call: Call, tx: Transaction, mail: Mail) -> None:
    """Writes a mail in the caller's transaction; after the commit call `app.wake_mail()`."""
    await outbox.put(
        tx,
        Letter(
            id=call.app.new_id(call.now),
            recipient=mail.to,
            subject=mail.subject,
            text=seal(_secrets(call.app.ring)[0], mail.text),
            created_at=call.now,
            next_attempt_at=call.now,
            attempts=0,
            sent_at=None,
            error=None,
        ),
    )


async def deliver(app: App, sender: Sender) -> None:
    """Sends what is due. A lost database is told and waited out: the next call finds the mail."""
    try:
        while await deliver_due(app, sender):
            pass
    except Unavailable as lost:
        log.warning("mail.waiting", extra={"reason": lost.reason})


async def deliver_due(app: App, sender: Sender) -> int:
    """Sends what is due, ten mails at the most, and gives how many were tried.

    Raises:
        Unavailable: the database is lost; what was claimed is due again ten minutes later.
    """
    now = app.clock.now()
    claim = partial(outbox.claim, now=now, until=now + CLAIM_MS, limit=AT_ONCE)
    letters = await app.database.write(claim)
    for letter in letters:
        await _send(app, sender, letter)
    return len(letters)


async def recent(app: App, *, limit: int = 50) -> list[Letter]:
    """The newest mails with their texts, where mail is only printed: for `/dev/outbox`."""
    letters = await app.database.read(partial(outbox.recent, limit=limit))
    return [msgspec.structs.replace(each, text=_opened(app, each) or "") for each in letters]


async def sweep(app: App) -> int:
    """Empties old texts and deletes old mails: for the retention job. Gives how many."""
    now = app.clock.now()

    async def body(tx: Transaction) -> int:
        wiped = await outbox.wipe_old(tx, before=now - SHOWN_MS)
        return wiped + await outbox.forget(
            tx, before=now - KEPT_MS, failed_before=now - KEPT_FAILED_MS
        )

    return await app.database.write(body)


async def _send(app: App, sender: Sender, letter: Letter) -> None:
    text = _opened(app, letter)
    failure: MailFailed | None = None
    try:
        if text is None:
            raise MailFailed("sealed with a SECRET that is gone", permanent=True)
        mail = Mail(to=letter.recipient, subject=letter.subject, text=text)
        await asyncio.to_thread(sender.send, mail)
    except MailFailed as failed:
        failure = failed
    except ValueError as wrong:
        failure = MailFailed(str(wrong), permanent=True)
    now = app.clock.now()
    again_at = None if failure is None else _next_attempt(letter, failure, now)

    async def body(tx: Transaction) -> None:
        if failure is None:
            await outbox.mark_sent(tx, letter.id, now=now)
        else:
            await outbox.mark_failed(tx, letter.id, again_at=again_at, reason=str(failure))
        # A link is a secret: it stays only where the printed mail is all there is.
        if again_at is None and app.settings.smtp_url is not None:
            await outbox.wipe(tx, letter.id)

    await app.database.write(body)
    if failure is not None:
        event = "mail.delayed" if again_at is not None else "mail.given_up"
        log.warning(event, extra={"mail_id": letter.id, "reason": str(failure)})


def _secrets(ring: PepperRing) -> list[bytes]:
    """What texts are sealed with, newest first; of their own, so that no other seal opens here."""
    return [hmac.digest(pepper.signing_secret, b"mail", "sha256") for pepper in ring.peppers]


def _opened(app: App, letter: Letter) -> str | None:
    """The text of a mail; "" once it was emptied, None when its SECRET is no longer listed."""
    if not letter.text:
        return ""
    try:
        return unseal(_secrets(app.ring), letter.text)
    except SealBroken:
        return None


def _next_attempt(letter: Letter, failure: MailFailed, now: int) -> int | None:
    if failure.permanent or now - letter.created_at >= GIVE_UP_MS:
        return None
    return now + BACKOFF_MS[min(letter.attempts, len(BACKOFF_MS)) - 1]
