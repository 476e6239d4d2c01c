"""New passwords: with a link from a mail, or with the current one.

Either way every other login ends, and the owner is told by mail. A reset proves the address, so
it also verifies it, forgets the wrong passwords that were counted, and, when it is the first
proof, revokes the keys of before.
"""

import msgspec

from keybearer.adapters.sql import accounts, sessions
from keybearer.domain.errors import Failure
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
from keybearer.operations.links import Callback, OpenLink, Token
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
    """The password is changed; `token` is null, because the session that asked goes on."""

    token: str | None
    user: UserRecord


@operation(
    "POST",
    "/request-password-reset",
    access=Access.PUBLIC,
    tag="Accounts",
    accounts=True,
    errors=("INVALID_EMAIL", "INVALID_ORIGIN", "TOO_MANY_ATTEMPTS"),
)
async def request_password_reset(call: Call, asked: AskForReset) -> ResetAsked:
    """Mails a link that sets a new password; it works once, for one hour, and only the newest.

    The answer is the same whether or not there is such an account, and whether or not it got as
    many mails as it may (3 a minute, 20 a day).
    """
    address = read_address(asked.email)
    callback = links.check_callback(call.app.settings, asked.redirect_to)

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
        mail = mails.reset_password(call.app, address, token, call.now, callback)
        await outbox.put(call, tx, mail)

    await call.app.database.write(body)
    call.app.wake_mail()
    return ResetAsked()


@operation(
    "GET",
    "/reset-password/{token}",
    access=Access.PUBLIC,
    tag="Accounts",
    accounts=True,
    errors=("INVALID_TOKEN", "INVALID_ORIGIN"),
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
    tag="Accounts",
    accounts=True,
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
        ended = await sessions.end_all(tx, user.id, call.now)
        await accounts.forget_links(tx, user.id)
        await accounts.clear(tx, account_buckets(call.app.ring, user.email))
        mail = mails.password_changed(call.app, user.email, call.now)
        await outbox.put(call, tx, mail)
        await record(call, tx, "password.reset", owner_id=user.id, actor_id=user.id)
        return (*proven, f"owner:{user.id}", *(f"session:{id}" for id in ended))

    await call.app.change(body, tuple)
    call.app.wake_mail()
    return Status()


@operation(
    "POST",
    "/change-password",
    access=Access.SESSION,
    tag="Accounts",
    accounts=True,
    errors=(*PASSWORD_CODES, "TOO_MANY_ATTEMPTS"),
)
async def change_password(call: Call, asked: ChangePassword) -> PasswordChanged:
    """Changes the password of whoever is logged in, and ends the other logins."""
    user = await confirm_password(call, asked.current_password)
    password = await check_new_password(call, asked.new_password, (user.email, user.name))
    hashed = await call.app.hasher.hash(password)
    changed = msgspec.structs.replace(user, password_hash=hashed, updated_at=call.now)

    async def body(tx: Transaction) -> tuple[str, ...]:
        await ensure_unchanged(tx, user, code="INVALID_PASSWORD")
        await accounts.save_user(tx, user.id, {"password_hash": hashed, "updated_at": call.now})
        await accounts.forget_links(tx, user.id, purpose=links.RESET)
        ended: list[str] = []
        if asked.revoke_other_sessions:
            keep = call.session.session_id
            ended = await sessions.end_all(tx, user.id, call.now, keep=keep)
        mail = mails.password_changed(call.app, user.email, call.now)
        await outbox.put(call, tx, mail)
        await record(call, tx, "password.changed", owner_id=user.id)
        return tuple(f"session:{id}" for id in ended)

    await call.app.change(body, tuple)
    call.app.wake_mail()
    return PasswordChanged(token=None, user=user_record(changed))


OPERATIONS = (request_password_reset, open_reset_link, reset_password, change_password)
