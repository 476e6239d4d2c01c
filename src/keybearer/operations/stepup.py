"""Ask for the password again before a key is made or widened.

    cookie, session token    password within STEP_UP_AFTER     go on
                             longer ago                        403 SESSION_NOT_FRESH
    POST /verify-password    right                             fresh from now, and a new token
    POST /login              a program's own login             never asked: nobody sits there

A cookie that somebody copied is worth little then: it makes no key that outlives it. An access
token that a browser's login was given (`GET /token`) is that login under another name, so it is
asked as well.
"""

from typing import Annotated

import msgspec

from keybearer.adapters.sql import sessions as sql
from keybearer.domain.credentials import mint_session_token
from keybearer.domain.errors import Failure
from keybearer.domain.model import LoginSession
from keybearer.domain.ports import Transaction
from keybearer.operations.app import record
from keybearer.operations.authentication import confirm_password, ensure_unchanged
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.logins import BROWSER, outlives_browser, tags_of


class VerifyPassword(Input, frozen=True, kw_only=True):
    """The current password, once more."""

    password: Annotated[str, msgspec.Meta(max_length=4096)]


class PasswordVerified(Output, frozen=True, kw_only=True):
    """The password is right. `token` is what a session goes on with; null for an access token."""

    status: bool = True
    token: str | None

    def __repr__(self) -> str:
        return "PasswordVerified(…)"


async def require_fresh(call: Call) -> None:
    """Makes sure that a person who is logged in has given the password lately.

    Asked of logins of ours alone: the host app has its own ways with people it logged in.

    Raises:
        Failure: SESSION_NOT_FRESH.
    """
    after, session = call.app.settings.step_up_after, call.session
    if after is None or session.session_id is None:
        return
    if session.kind == "access" and await _is_a_programs(call, session.session_id):
        return
    given = session.authenticated_at
    if given is None or call.now - given > after:
        raise Failure("SESSION_NOT_FRESH")


async def _is_a_programs(call: Call, session_id: str) -> bool:
    login = await call.app.database.read(lambda tx: sql.by_id(tx, session_id))
    return login is not None and login.client_id != BROWSER


@operation(
    "POST",
    "/verify-password",
    access=Access.SESSION,
    accounts=True,
    tag="Sessions",
    secret=True,
    session="begins",
    errors=("INVALID_PASSWORD", "TOO_MANY_ATTEMPTS"),
)
async def verify_password(call: Call, asked: VerifyPassword) -> PasswordVerified:
    """Confirms the password of whoever is logged in, so that keys may be made and widened again.

    The login goes on, until when it did, with a new token (`token`, the cookie and
    `set-auth-token`): the old one is good no more when this has answered. A program keeps its
    access token. Wrong passwords are counted as at a login.
    """
    user = await confirm_password(call, asked.password)
    caller = call.session
    token = mint_session_token(call.app.entropy) if caller.kind == "session" else None
    digest = None if token is None else call.app.ring.digest(token.reveal().encode())

    async def body(tx: Transaction) -> LoginSession:
        await ensure_unchanged(tx, user, code="INVALID_PASSWORD")
        login = await sql.confirm(tx, caller.session_id or "", token_digest=digest, now=call.now)
        if login is None:
            raise Failure("SESSION_ENDED")
        await record(call, tx, "session.confirmed", owner_id=user.id, target_id=login.id)
        return login

    login, _ = await call.app.change(body, lambda login: tags_of([login.id]))
    if token is None:
        return PasswordVerified(token=None)
    call.reply.session = token
    call.reply.persistent = outlives_browser(call, login)
    return PasswordVerified(token=token.reveal())


OPERATIONS = (verify_password,)
