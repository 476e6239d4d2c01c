"""Refresh a login, once for each token.

    presented        family                                    then
    generation n     n is live                                 n+1 becomes the live one
    generation n-1   n became live within the last 10 s        n again: the reply got lost
    older            -                                         the login ends: stolen, or copied

The database decides, in one guarded statement, so that a hundred requests at once make one
successor, and no refresh outlives a logout: both lock the session's row first.
"""

import msgspec

from keybearer.adapters.sql import accounts
from keybearer.adapters.sql import sessions as sql
from keybearer.adapters.sql.sessions import Family
from keybearer.domain.credentials import parse_refresh_token, refresh_token_holds
from keybearer.domain.errors import Failure
from keybearer.domain.model import LoginSession, User
from keybearer.domain.ports import Transaction
from keybearer.operations import mails, outbox
from keybearer.operations.app import record
from keybearer.operations.declaration import Call
from keybearer.operations.logins import end_logins, ended_lately, settle_ended, tags_of
from keybearer.verification.owners import owner_state

LEEWAY_MS = 10_000


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """A login that goes on, with the generation that is live now."""

    family: Family
    login: LoginSession
    user: User


async def refresh_once(call: Call, text: str) -> Refreshed:
    """The login that a refresh token continues.

    Raises:
        Failure: INVALID_REFRESH_TOKEN, whatever the reason; as `settle_ended`.
    """
    token = parse_refresh_token(text.encode("utf-8"))
    if token is None:
        raise Failure("INVALID_REFRESH_TOKEN")

    before: list[str] = []

    async def body(tx: Transaction) -> Refreshed | list[str]:
        family = await sql.family_by_id(tx, token.family)
        if family is None or not refresh_token_holds(call.app.ring, token, seed=family.seed):
            return []  # forged or mistyped: who has no token of ours ends nothing
        opened = await sql.by_id(tx, family.session_id, lock=True)
        before[:] = await ended_lately(call, tx, [family.session_id])
        family = await sql.family_by_id(tx, token.family)
        user = await accounts.user_by_id(tx, opened.user_id) if opened is not None else None
        if family is None or opened is None or user is None or not alive(call, opened, user):
            return []
        if token.generation == family.generation:
            return await _advance(call, tx, family, opened, user)
        just_now = call.now < min(family.rotated_at + LEEWAY_MS, family.expires_at)
        if token.generation == family.generation - 1 and just_now and family.ended_at is None:
            return Refreshed(family=family, login=opened, user=user)
        return await _end_reused(call, tx, family, user)

    result, _ = await call.app.change(body, _touched)
    if isinstance(result, list):
        if result:
            call.app.wake_mail()
        # Nothing of it is good after our refusal, also if it was ended only just now.
        await settle_ended(call, before)
        raise Failure("INVALID_REFRESH_TOKEN")
    return result


async def _advance(
    call: Call, tx: Transaction, family: Family, opened: LoginSession, user: User
) -> Refreshed | list[str]:
    expires_at = min(call.now + call.app.settings.refresh_token_ttl, family.absolute_expires_at)
    advanced = await sql.advance(
        tx, family.family, generation=family.generation, now=call.now, expires_at=expires_at
    )
    if not advanced:
        return []
    await sql.seen(tx, opened.id, call.now)
    live = msgspec.structs.replace(
        family,
        generation=family.generation + 1,
        rotated_at=call.now,
        expires_at=expires_at,
    )
    return Refreshed(family=live, login=opened, user=user)


async def _end_reused(call: Call, tx: Transaction, family: Family, user: User) -> list[str]:
    """Ends the login of a token that was spent before, and tells the owner.

    Once: the login is locked and alive, and whoever comes after finds it ended.
    """
    await end_logins(call, tx, user.id, [family.session_id])
    await record(
        call, tx, "refresh.reuse", owner_id=user.id, target_id=family.session_id,
        outcome="refused",
    )  # fmt: skip
    await outbox.put(call, tx, mails.refresh_reused(call.app, user, call.now))
    return [family.session_id]


def alive(call: Call, opened: LoginSession, user: User | None) -> bool:
    """Whether a login can be refreshed: neither ended nor expired, and its owner is active."""
    must_verify = call.app.settings.require_email_verification
    return (
        opened.ended_at is None
        and call.now < opened.ends_at
        and owner_state(user, must_verify=must_verify) == "active"
    )


def _touched(result: Refreshed | list[str]) -> tuple[str, ...]:
    return tags_of(result) if isinstance(result, list) else ()
