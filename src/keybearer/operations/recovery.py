"""New passwords: with a link from a mail, or with the current one.

Either way every login ends, and the owner is told by mail; who changes it while logged in gets a
new one. A reset proves the address, so
it also verifies it, forgets the wrong passwords that were counted, and, when it is the first
proof, revokes the keys of before.
"""

from functools import partial

import msgspec
from msgspec import UNSET, UnsetType

from keybearer.adapters.sql import accounts, sessions
from keybearer.adapters.sql.sessions import Family
from keybearer.domain.credentials import Secret
from keybearer.domain.errors import Failure
from keybearer.domain.model import LoginSession, User
from keybearer.domain.ports import Transaction
from keybearer.operations import links, mails, outbox, throttle
from keybearer.operations.app import record
from keybearer.operations.authentication import (
    PASSWORD_CODES,
    account_buckets,
    check_new_password,
    confirm_password,
    ensure_unchanged,
)
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.issuing import program_login, token_pair
from keybearer.operations.links import Callback, OpenLink, Token
from keybearer.operations.logins import (
    BROWSER,
    end_all_logins,
    new_login,
    open_login,
    outlives_browser,
    record_ended,
    tags_of,
)
from keybearer.operations.users import may_mail, prove_ownership, read_address
from keybearer.operations.wire import Status, UserRecord, user_record


class AskForReset(Input, frozen=True, kw_only=True):
    """Whom to mail, and where the link leads in the end."""

    email: str
    redirect_to: Callback = None


class ResetAsked(Output, frozen=True, kw_only=True):
    """Says the same to everybody."""

    status: bool = True
    message: str = "If this email exists in our system, check your email for the reset link"


class ResetPassword(Input, frozen=True, kw_only=True):
    """The link's token, and the password to set."""

    new_password: str
    token: Token


class ChangePassword(Input, frozen=True, kw_only=True):
    """The password to set, and the current one."""

    new_password: str
    current_password: str
    revoke_other_sessions: bool = True


class PasswordChanged(Output, frozen=True, kw_only=True):
    """The password is changed, and `token` is what the caller goes on with.

    A session token for whoever came with a cookie or a session token. A program that came with
    an access token gets what a log-in gives: an access token, and the refresh token beside it.
    """

    token: str | None
    token_type: str | UnsetType = UNSET
    expires_in: int | UnsetType = UNSET
    refresh_token: str | UnsetType = UNSET
    refresh_expires_in: int | UnsetType = UNSET
    user: UserRecord

    def __repr__(self) -> str:
        return "PasswordChanged(…)"


@operation(
    "POST",
    "/request-password-reset",
    access=Access.PUBLIC,
    accounts=True,
    tag="Accounts",
    errors=("INVALID_EMAIL", "INVALID_ORIGIN", "INVALID_REDIRECT_URL", "TOO_MANY_ATTEMPTS"),
)
async def request_password_reset(call: Call, asked: AskForReset) -> ResetAsked:
    """Mails a link that sets a new password; it works once, for one hour, and only the newest.

    The answer is the same whether or not there is such an account, and whether or not it got as
    many mails as it may (3 a minute, 20 a day).
    """
    address = read_address(asked.email)
    settings = call.app.settings
    callback = links.check_callback(settings, asked.redirect_to, code="INVALID_REDIRECT_URL")

    async def body(tx: Transaction) -> None:
        await throttle.limit_here(call, tx, throttle.ASK_FOR_MAIL)
        allowed = await may_mail(call, tx, address)
        user = await accounts.user_by_email(tx, address)
        if user is None or user.disabled_at is not None or not allowed:
            owner = None if user is None else user.id
            await record(call, tx, "reset.requested", owner_id=owner, outcome="refused")
            return
        await record(call, tx, "reset.requested", owner_id=user.id)
        token = await links.issue(call, tx, user, links.RESET)
        mail = mails.reset_password(call.app, user, token, call.now, callback)
        await outbox.put(call, tx, mail)

    await call.app.database.write(body)
    call.app.wake_mail()
    return ResetAsked()


@operation(
    "GET",
    "/reset-password/{token}",
    access=Access.PUBLIC,
    accounts=True,
    tag="Accounts",
    errors=("INVALID_TOKEN", "INVALID_CALLBACK_URL"),
    redirects=True,
)
async def open_reset_link(call: Call, asked: OpenLink) -> Status:
    """Leads from a reset link to the page that asks for the password; changes nothing.

    With `callbackURL` the answer is a redirect there, with `?token=…` or
    `?error=INVALID_TOKEN`. Without one it says whether the link is good.
    """
    callback = links.check_callback(call.app.settings, asked.callback_url)
    try:
        await links.peek(call, asked.token, links.RESET)
    except Failure as failure:
        if callback is None:
            raise
        call.reply.location = links.with_parameter(callback, "error", failure.code)
        return Status(status=False)
    if callback is not None:
        call.reply.location = links.with_parameter(callback, "token", asked.token)
    return Status()


@operation(
    "POST",
    "/reset-password",
    access=Access.PUBLIC,
    accounts=True,
    tag="Accounts",
    errors=("INVALID_TOKEN", *PASSWORD_CODES, "TOO_MANY_ATTEMPTS"),
)
async def reset_password(call: Call, asked: ResetPassword) -> Status:
    """Sets a new password with the token of a reset link, and ends every login.

    A password that is refused does not use up the link.
    """

    async def count(tx: Transaction) -> None:
        await throttle.limit_here(call, tx, throttle.RESET)

    await call.app.database.write(count)
    holder = await links.peek(call, asked.token, links.RESET)
    about = (holder.email, holder.name)
    password = await check_new_password(call, asked.new_password, about)
    hashed = await call.app.hasher.hash(password)

    async def body(tx: Transaction) -> tuple[str, ...]:
        user = await links.redeem(call, tx, asked.token, links.RESET)
        await accounts.save_user(tx, user.id, {"password_hash": hashed, "updated_at": call.now})
        proven = await prove_ownership(call, tx, user)
        ended = await end_all_logins(call, tx, user.id)
        await accounts.forget_links(tx, user.id)
        await accounts.clear(tx, account_buckets(call.app.ring, user.email))
        mail = mails.password_changed(call.app, user, call.now)
        await outbox.put(call, tx, mail)
        await record(call, tx, "password.reset", owner_id=user.id, actor_id=user.id)
        return (*proven, f"owner:{user.id}", *tags_of(ended))

    await call.app.change(body, tuple)
    call.app.wake_mail()
    return Status()


@operation(
    "POST",
    "/change-password",
    access=Access.SESSION,
    accounts=True,
    tag="Accounts",
    secret=True,
    session="begins",
    errors=(*PASSWORD_CODES, "TOO_MANY_ATTEMPTS"),
)
async def change_password(call: Call, asked: ChangePassword) -> PasswordChanged:
    """Changes the password of whoever is logged in.

    Every login ends, and the caller gets a new one: whoever has copied the old token or cookie
    is out. With `revokeOtherSessions: false` all of them go on, and `token` is null.
    """
    user = await confirm_password(call, asked.current_password)
    password = await check_new_password(call, asked.new_password, (user.email, user.name))
    hashed = await call.app.hasher.hash(password)
    changed = msgspec.structs.replace(user, password_hash=hashed, updated_at=call.now)
    begun = await _next_login(call, changed) if asked.revoke_other_sessions else None

    async def body(tx: Transaction) -> tuple[list[str], Secret | None]:
        await ensure_unchanged(tx, user, code="INVALID_PASSWORD")
        await accounts.save_user(tx, user.id, {"password_hash": hashed, "updated_at": call.now})
        await accounts.forget_links(tx, user.id, purpose=links.RESET)
        mail = mails.password_changed(call.app, user, call.now)
        await outbox.put(call, tx, mail)
        ended: list[str] = []
        if asked.revoke_other_sessions:
            ended = await sessions.end_all(tx, user.id, call.now)
        await record(call, tx, "password.changed", owner_id=user.id)
        await record_ended(call, tx, user.id, ended)
        if begun is None:
            return ended, None
        token = await open_login(call, tx, changed, begun.login, with_token=begun.family is None)
        if begun.family is not None:
            await sessions.add_family(tx, begun.family)
        return ended, token

    (_, token), _ = await call.app.change(
        body, lambda done: (f"owner:{user.id}", *tags_of(done[0]))
    )
    call.app.wake_mail()
    if begun is not None and begun.family is not None:
        pair = await token_pair(call, changed, begun.login, begun.family)
        return PasswordChanged(**msgspec.structs.asdict(pair))
    if begun is not None:
        call.reply.session = token
        call.reply.persistent = outlives_browser(call, begun.login)
    return PasswordChanged(
        token=None if token is None else token.reveal(), user=user_record(changed)
    )


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A login that is yet to be written; only a program's has a refresh family."""

    login: LoginSession
    family: Family | None = None


async def _next_login(call: Call, user: User) -> _Begun | None:
    """What goes on in place of the caller's login: one of the same kind, for as long again."""
    id = call.session.session_id
    old = None if id is None else await call.app.database.read(partial(sessions.by_id, id=id))
    if old is None:
        return None
    if call.session.kind == "access" and old.client_id != BROWSER:
        login, family = program_login(call, user, old.client_id)
        return _Begun(login=login, family=family)
    life_ms = old.expires_at - old.created_at
    return _Begun(
        login=new_login(call, user, client_id=old.client_id, life_ms=life_ms, idle_ms=old.idle_ms)
    )


OPERATIONS = (request_password_reset, open_reset_link, reset_password, change_password)
