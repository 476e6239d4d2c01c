"""Log in with a cookie, see where one is logged in, log out."""

from typing import Annotated

import msgspec

from keybearer.adapters.sql import accounts, keys
from keybearer.adapters.sql import sessions as sql
from keybearer.domain.credentials import Secret
from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso
from keybearer.domain.model import Key, LoginSession, Session, User
from keybearer.domain.ports import Transaction
from keybearer.operations import links
from keybearer.operations.authentication import authenticate_password
from keybearer.operations.declaration import Access, Call, Empty, Input, Output, operation
from keybearer.operations.issuing import session_jwt
from keybearer.operations.keyconfig import config_of_key
from keybearer.operations.logins import (
    BROWSER,
    end_all_logins,
    end_presented,
    log_out,
    new_login,
    open_login,
)
from keybearer.operations.wire import Status, Success, Timestamp, UserRecord, user_record

TAG = "Sessions"
_DAY_MS = 86_400_000
LOGIN_ERRORS = (
    "INVALID_EMAIL_OR_PASSWORD",
    "EMAIL_NOT_VERIFIED",
    "USER_DISABLED",
    "TOO_MANY_ATTEMPTS",
    "INVALID_ORIGIN",
)

Email = Annotated[str, msgspec.Meta(max_length=320)]
Password = Annotated[str, msgspec.Meta(max_length=4096)]


class SignIn(Input, frozen=True, kw_only=True):
    """Who logs in. Without `rememberMe` the cookie ends with the browser, the login in a day."""

    email: Email
    password: Password
    callback_url: Annotated[str, msgspec.Meta(max_length=2048)] | None = msgspec.field(
        default=None, name="callbackURL"
    )
    remember_me: bool = True


class SignedIn(Output, frozen=True, kw_only=True):
    """The login. `token` is good as `Authorization: Bearer` too."""

    redirect: bool
    token: str
    url: str | msgspec.UnsetType = msgspec.UNSET
    user: UserRecord

    def __repr__(self) -> str:
        return "SignedIn(…)"


class SessionRecord(Output, frozen=True, kw_only=True):
    """Where somebody is logged in. `token` is a handle to end it by; it opens nothing."""

    expires_at: Timestamp
    token: str
    created_at: Timestamp
    updated_at: Timestamp
    ip_address: str
    user_agent: str
    user_id: str
    id: str
    current: bool


class SessionAndUser(Output, frozen=True, kw_only=True):
    """The caller's login, and who it is."""

    session: SessionRecord
    user: UserRecord


class SignOut(Input, frozen=True, kw_only=True):
    """What Better Auth's client may send; it is taken and means nothing: the answer is JSON."""

    callback_url: Annotated[str, msgspec.Meta(max_length=2048)] | None = msgspec.field(
        default=None, name="callbackURL"
    )
    disable_redirect: bool | None = None
    state: Annotated[str, msgspec.Meta(max_length=2048)] | None = None


class AskSession(Input, frozen=True, kw_only=True):
    """What Better Auth's client may send; it is taken and means nothing.

    Nothing of a session is kept in a cookie, and asking does not make it longer.
    """

    disable_cookie_cache: bool | None = None
    disable_refresh: bool | None = None


class RevokeSession(Input, frozen=True, kw_only=True):
    """The handle of the login to end."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


@operation("POST", "/sign-in/email", access=Access.PUBLIC, accounts=True, tag=TAG, secret=True,
           verdict=True, session="begins", errors=(*LOGIN_ERRORS, "INVALID_CALLBACK_URL"),
           forms=True)  # fmt: skip
async def sign_in_email(call: Call, asked: SignIn) -> SignedIn:
    """Logs in with an e-mail address and a password, and sets the session cookie.

    A login always gets a new token; the one that the browser had before ends. With `callbackURL`
    the answer has it as `url` and as `Location`, with 200: whoever reads the answer goes there.
    """
    url = links.check_callback(call.app.settings, asked.callback_url)
    user = await authenticate_password(call, asked.email, asked.password)
    settings = call.app.settings
    login = new_login(
        call,
        user,
        client_id=BROWSER,
        life_ms=settings.session_ttl if asked.remember_me else min(settings.session_ttl, _DAY_MS),
        idle_ms=settings.session_idle_ttl,
    )
    before = _login_before(call)
    if before is not None:
        # In a transaction of its own: two logins of one browser may have two owners, whose
        # audit chains must not be locked together in either order.
        await log_out(call, before.subject, [before.id])

    async def body(tx: Transaction) -> Secret | None:
        return await open_login(call, tx, user, login, with_token=True)

    token = await call.app.database.write(body)
    call.reply.session = token
    call.reply.persistent = asked.remember_me
    call.reply.onward = url
    return SignedIn(
        redirect=url is not None,
        token="" if token is None else token.reveal(),
        url=msgspec.UNSET if url is None else url,
        user=user_record(user),
    )


def _login_before(call: Call) -> Session | None:
    """The login whose session token the request came with, cookie or bearer."""
    verdict = call.verdict
    return verdict if isinstance(verdict, Session) and verdict.kind == "session" else None


@operation("POST", "/sign-out", access=Access.PUBLIC, accounts=True, tag=TAG, verdict=True,
           session="ends",
           errors=("INVALID_ORIGIN", "SESSION_REQUIRED", "TOO_MANY_ATTEMPTS"))  # fmt: skip
async def sign_out(call: Call, asked: SignOut) -> Success:
    """Ends the caller's login and clears the cookie; does nothing without one."""
    await end_presented(call)
    call.reply.session = "end"
    return Success()


@operation("GET", "/get-session", access=Access.OPTIONAL, accounts=True, tag=TAG, keys=True)
async def get_session(call: Call, asked: AskSession) -> SessionAndUser | None:
    """Shows the caller's login and user; null when nobody is logged in.

    To the session itself, by cookie or as Bearer, the header `set-auth-jwt` gives an access
    token, as `GET /token` does. Where a configuration of keys says so, one of its keys shows its
    owner, too: it can do no more than before, and that it was asked counts as a use.
    """
    caller = call.caller
    if isinstance(caller, Session) and caller.kind == "key":
        return await _of_key(call, caller)
    if not isinstance(caller, Session) or caller.session_id is None:
        return None
    session_id = caller.session_id

    async def body(tx: Transaction) -> tuple[LoginSession | None, User | None]:
        login = await sql.by_id(tx, session_id)
        return login, await accounts.user_by_id(tx, caller.subject)

    login, user = await call.app.database.read(body)
    if login is None or user is None:
        return None
    if call.app.jwt and caller.kind == "session":
        call.reply.jwt = await session_jwt(call, caller, session_id)
    return SessionAndUser(session=_record(login, session_id), user=user_record(user))


async def _of_key(call: Call, caller: Session) -> SessionAndUser:
    """What a key that stands for its owner shows.

    Raises:
        Failure: SESSION_REQUIRED, where its configuration does not say so, or no user owns it.
    """

    async def body(tx: Transaction) -> tuple[Key | None, User | None]:
        key = await keys.by_id(tx, caller.id, now=call.now)
        return key, await accounts.user_by_id(tx, caller.subject)

    key, user = await call.app.database.read(body)
    if key is None or user is None or not config_of_key(call, key).sessions:
        raise Failure("SESSION_REQUIRED")
    ends_at = key.expires_at or call.now + call.app.settings.session_ttl
    record = SessionRecord(
        expires_at=iso(ends_at),
        token=key.id,
        created_at=iso(call.now),
        updated_at=iso(call.now),
        ip_address=call.facts.ip or "",
        user_agent=call.facts.user_agent or "",
        user_id=user.id,
        id=key.id,
        current=True,
    )
    return SessionAndUser(session=record, user=user_record(user))


@operation("GET", "/list-sessions", access=Access.SESSION, accounts=True, tag=TAG)
async def list_sessions(call: Call, asked: Empty) -> list[SessionRecord]:
    """Lists where the caller is logged in, the last used first."""
    await call.app.verifier.usage.flush(call.now)
    owner = call.session.subject
    logins = await call.app.database.read(lambda tx: sql.live_of(tx, owner, now=call.now))
    return [_record(login, call.session.session_id) for login in logins]


@operation("POST", "/revoke-session", access=Access.SESSION, accounts=True, tag=TAG,
           session="ends")  # fmt: skip
async def revoke_session(call: Call, asked: RevokeSession) -> Status:
    """Ends one of the caller's logins by its handle; a handle of nobody's changes nothing."""
    owner = call.session.subject
    login = await call.app.database.read(lambda tx: sql.by_id(tx, asked.token))
    if login is not None and login.user_id == owner:
        await log_out(call, owner, [login.id])
        if login.id == call.session.session_id:
            call.reply.session = "end"
    return Status()


@operation("POST", "/revoke-sessions", access=Access.SESSION, accounts=True, tag=TAG,
           session="ends")  # fmt: skip
async def revoke_sessions(call: Call, asked: Empty) -> Status:
    """Ends every login of the caller, this one too."""
    await _end_every(call, keep=None)
    call.reply.session = "end"
    return Status()


@operation("POST", "/revoke-other-sessions", access=Access.SESSION, accounts=True, tag=TAG)
async def revoke_other_sessions(call: Call, asked: Empty) -> Status:
    """Ends every login of the caller but this one."""
    await _end_every(call, keep=call.session.session_id)
    return Status()


async def _end_every(call: Call, *, keep: str | None) -> None:
    owner = call.session.subject

    async def body(tx: Transaction) -> list[str]:
        return await end_all_logins(call, tx, owner, keep=keep)

    # By the owner: one that another request has ended just now may still be cached.
    await call.app.change(body, lambda _: (f"owner:{owner}",))


def _record(login: LoginSession, current: str | None) -> SessionRecord:
    return SessionRecord(
        expires_at=iso(login.ends_at),
        token=login.id,
        created_at=iso(login.created_at),
        updated_at=iso(login.last_seen_at),
        ip_address=login.ip or "",
        user_agent=login.user_agent or "",
        user_id=login.user_id,
        id=login.id,
        current=login.id == current,
    )


OPERATIONS = (
    sign_in_email,
    sign_out,
    get_session,
    list_sessions,
    revoke_session,
    revoke_sessions,
    revoke_other_sessions,
)
