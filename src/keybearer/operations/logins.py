"""How a login begins and ends, whichever way."""

from collections.abc import Sequence

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
    """Ends logins with their refresh families, in the caller's transaction.

    Returns:
        Those that a node may still accept, for `App.change`: that were ended now, or by somebody
        else so lately that it may not have been told everywhere.

    Raises:
        Failure: TOO_MANY_ATTEMPTS, for whoever ends what has ended again and again, and presents
            nothing that is good.
    """
    ended = await sql.end(tx, ids, call.now)
    await record_ended(call, tx, owner_id, ended)
    lease_ms = LEASE_MS + call.app.settings.stale_if_database_lost
    lately = await sql.ended_since(tx, ids, settled_before(call.now, lease_ms))
    if len(lately) > len(ended) and isinstance(call.caller, Anonymous):
        await throttle.limit_here(call, tx, throttle.END_AGAIN)
    return lately


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
        Failure: as `end_logins`.
    """

    async def body(tx: Transaction) -> list[str]:
        return await end_logins(call, tx, owner_id, ids)

    await call.app.change(body, tags_of)


async def end_presented(call: Call) -> str | None:
    """Ends the login whose credential a request came with, and gives its id; there may be none.

    Raises:
        Failure: SESSION_REQUIRED for an API key, which this does not end; as `end_logins`.
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
