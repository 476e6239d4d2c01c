"""How a login begins and ends, whichever way."""

from collections.abc import Sequence
from functools import partial

from keybearer.adapters.sql import sessions as sql
from keybearer.domain.credentials import Secret, mint_session_token
from keybearer.domain.errors import Failure
from keybearer.domain.model import Anonymous, LoginSession, Refusal, Session, User
from keybearer.domain.ports import Transaction
from keybearer.operations import throttle
from keybearer.operations.app import record
from keybearer.operations.authentication import ensure_unchanged
from keybearer.operations.declaration import Call
from keybearer.verification.coherence import LEASE_MS, settled_before

BROWSER = "browser"
_OVER = frozenset({"TOKEN_EXPIRED", "SESSION_ENDED"})
"""The refusals that name a login."""


def new_login(
    call: Call, user: User, *, client_id: str, life_ms: int, idle_ms: int
) -> LoginSession:
    """A login that is yet to be written."""
    return LoginSession(
        id=call.app.new_id(call.now),
        user_id=user.id,
        client_id=client_id,
        created_at=call.now,
        last_seen_at=call.now,
        authenticated_at=call.now,
        expires_at=call.now + life_ms,
        idle_ms=idle_ms,
        ended_at=None,
        ip=call.facts.ip,
        user_agent=call.facts.user_agent,
    )


async def open_login(
    call: Call, tx: Transaction, user: User, login: LoginSession, *, with_token: bool
) -> Secret | None:
    """Writes a login whose password was checked, and gives its session token if it has one."""
    await ensure_unchanged(tx, user)
    token = mint_session_token(call.app.entropy) if with_token else None
    digest = None if token is None else call.app.ring.digest(token.reveal().encode())
    await sql.add(tx, login, token_digest=digest)
    await record(
        call, tx, "session.opened", owner_id=user.id, target_id=login.id, actor_id=user.id,
        clientId=login.client_id,
    )  # fmt: skip
    return token


def outlives_browser(call: Call, login: LoginSession) -> bool:
    """Whether a login's cookie does, by how long it was opened for (`rememberMe`)."""
    return login.expires_at - login.created_at >= call.app.settings.session_ttl


async def end_logins(call: Call, tx: Transaction, owner_id: str, ids: Sequence[str]) -> list[str]:
    """Ends logins with their refresh families, in the caller's transaction; gives the ended ids."""
    ended = await sql.end(tx, ids, call.now)
    await record_ended(call, tx, owner_id, ended)
    return ended


async def end_all_logins(
    call: Call, tx: Transaction, owner_id: str, *, keep: str | None = None
) -> list[str]:
    """Ends every login of a user but `keep`, in the caller's transaction; gives their ids."""
    ended = await sql.end_all(tx, owner_id, call.now, keep=keep)
    await record_ended(call, tx, owner_id, ended)
    return ended


async def record_ended(call: Call, tx: Transaction, owner_id: str, ended: Sequence[str]) -> None:
    """An event for each login that was ended just now."""
    for id in ended:
        await record(call, tx, "session.ended", owner_id=owner_id, target_id=id)


async def log_out(call: Call, owner_id: str, ids: Sequence[str]) -> None:
    """Ends logins; when this returns no token of theirs is accepted any more, whoever ended them.

    Raises:
        Failure: as `settle_ended`.
    """

    async def body(tx: Transaction) -> tuple[list[str], list[str]]:
        ended = await end_logins(call, tx, owner_id, ids)
        lately = await ended_lately(call, tx, ids)
        return ended, [id for id in lately if id not in ended]

    (_, before), _ = await call.app.change(body, lambda done: tags_of(done[0]))
    await settle_ended(call, before)


async def ended_lately(call: Call, tx: Transaction, ids: Sequence[str]) -> list[str]:
    """Those of the logins that ended so lately that some node may not have been told."""
    lease_ms = LEASE_MS + call.app.settings.stale_if_database_lost
    return await sql.ended_since(tx, ids, settled_before(call.now, lease_ms))


async def settle_ended(call: Call, ids: Sequence[str]) -> None:
    """Returns when no node accepts logins that had ended before, by whomever.

    Raises:
        Failure: TOO_MANY_ATTEMPTS, for whoever does that again and again, and presents nothing
            that is good.
        Unavailable: as `App.change`.
    """
    where = throttle.here(call) if isinstance(call.caller, Anonymous) else None

    async def count(tx: Transaction) -> None:
        await throttle.limit_here(call, tx, throttle.END_AGAIN)

    async def settle(tag: str) -> None:
        if where is not None:
            await call.app.database.write(count)
        await call.app.change(_nothing, lambda _: (tag,))

    for tag in tags_of(ids):
        # A hundred at once are one change.
        await call.app.shared((tag, where), partial(settle, tag))


async def _nothing(_tx: Transaction) -> None:
    return None


async def end_presented(call: Call) -> str | None:
    """Ends the login whose credential a request came with, and gives its id; there may be none.

    Raises:
        Failure: SESSION_REQUIRED for an API key, which this does not end; as `settle_ended`.
    """
    verdict = call.verdict
    if isinstance(verdict, Session):
        if verdict.session_id is None:
            raise Failure("SESSION_REQUIRED")
        await log_out(call, verdict.subject, [verdict.session_id])
        return verdict.session_id
    if isinstance(verdict, Refusal) and verdict.code in _OVER and verdict.id:
        await _end_refused(call, verdict.id)
        return verdict.id
    return None


async def _end_refused(call: Call, session_id: str) -> None:
    """Ends the login of a token whose time is over, or that another request has just ended."""
    login = await call.app.database.read(lambda tx: sql.by_id(tx, session_id))
    if login is not None:
        await log_out(call, login.user_id, [login.id])


def tags_of(ids: Sequence[str]) -> tuple[str, ...]:
    """What a change of these logins touches."""
    return tuple(f"session:{id}" for id in ids)
