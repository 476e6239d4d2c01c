"""Accounts: sign up, prove the address, change what is shown, leave.

What nobody can find out here is whether an address has an account: answers, work and commits
are the same, and the difference is in the mail alone.

    sign-up, address       what is written              what is mailed
    new                    the user, unverified         verification link
    unverified, same pw    nothing                      verification link, the newest alone works
    unverified, other pw   the password is taken away   link to choose one
    verified               nothing                      "you already have an account"

The third line is against pre-hijacking: who signs up with somebody else's address and waits for
the owner to verify it must not know the password afterwards. Two people claim the address, so
its owner chooses. For the same reason the first proof of ownership ends every session, token and
key of before. Where verification is not required, unverified accounts are in use: they are
treated as verified ones, and their owners take them over with a reset.
"""

from functools import partial

import msgspec
from msgspec import UNSET, UnsetType

from keybearer.adapters.sql import accounts
from keybearer.domain.errors import Failure
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction
from keybearer.operations import links, mails, outbox, recovery, throttle
from keybearer.operations.app import record
from keybearer.operations.authentication import (
    PASSWORD_CODES,
    check_new_password,
    confirm_password,
    current_user,
    ensure_unchanged,
)
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.links import Callback, OpenLink, Token
from keybearer.operations.users import (
    mail_verification,
    may_mail,
    new_user,
    prove_ownership,
    read_address,
    read_image,
    read_name,
    remove_user,
)
from keybearer.operations.wire import Status, UserRecord, user_record


class SignUp(Input, frozen=True, kw_only=True):
    """Who wants an account, and in which of the server's languages the mails shall be.

    `rememberMe` is taken and means nothing: nobody is logged in yet.
    """

    name: str
    email: str
    password: str
    image: str | None = None
    locale: str | None = None
    callback_url: Callback = msgspec.field(default=None, name="callbackURL")
    remember_me: bool = True


class SignedUp(Output, frozen=True, kw_only=True):
    """The user as asked for. `token` is null: log in once the address is verified."""

    token: str | None
    user: UserRecord


class AskForLink(Input, frozen=True, kw_only=True):
    """Whom to mail, and where the link leads in the end."""

    email: str
    callback_url: Callback = msgspec.field(default=None, name="callbackURL")


class ConfirmLink(Input, frozen=True, kw_only=True):
    """What stood in the link."""

    token: Token


class Verified(Output, frozen=True, kw_only=True):
    """The address is verified. Nobody is logged in by it, so `user` is null."""

    status: bool = True
    user: UserRecord | None = None


class UpdateUser(Input, frozen=True, kw_only=True):
    """What to change; null empties."""

    name: str | UnsetType = UNSET
    image: str | UnsetType | None = UNSET
    locale: str | UnsetType | None = UNSET


class DeleteUser(Input, frozen=True, kw_only=True):
    """The current password, once more."""

    password: str


class Deleted(Output, frozen=True, kw_only=True):
    """The account is gone."""

    success: bool = True
    message: str = "User deleted"


@operation(
    "POST",
    "/sign-up/email",
    access=Access.PUBLIC,
    accounts=True,
    tag="Accounts",
    errors=(
        "INVALID_EMAIL",
        *PASSWORD_CODES,
        "INVALID_ORIGIN",
        "INVALID_CALLBACK_URL",
        "TOO_MANY_ATTEMPTS",
    ),
    forms=True,
)
async def sign_up_email(call: Call, asked: SignUp) -> SignedUp:
    """Signs up with an e-mail address and a password.

    Mails a link that verifies the address. The answer is the same whether or not the address
    has an account: then its owner is told by mail, and the answer's `id` is nobody's.
    """
    address = read_address(asked.email)
    name = read_name(asked.name)
    image = read_image(asked.image)
    locale = _read_locale(call, asked.locale)
    callback = links.check_callback(call.app.settings, asked.callback_url)
    await call.app.database.write(partial(throttle.limit_here, call, paces=throttle.SIGN_UP))
    password = await check_new_password(call, asked.password, (address, name))
    hashed = await call.app.hasher.hash(password)
    existing = await call.app.database.read(partial(accounts.user_by_email, email=address))
    # Hashed twice for every address, so that the time does not tell which ones have an account.
    before = None if existing is None else existing.password_hash
    same_password = await call.app.hasher.verify(before, password)
    user = new_user(
        call, email=address, name=name, password_hash=hashed, image=image, locale=locale
    )

    async def body(tx: Transaction) -> None:
        held = await accounts.add_user(tx, user)
        if held.id == user.id:
            await record(call, tx, "user.signed_up", owner_id=user.id, actor_id=user.id)
            await mail_verification(call, tx, user, callback)
        else:
            unchanged = held.password_hash == before
            await _sign_up_again(call, tx, held, callback, same=same_password and unchanged)

    await call.app.database.write(body)
    call.app.wake_mail()
    return SignedUp(token=None, user=user_record(user))


async def _sign_up_again(
    call: Call, tx: Transaction, user: User, callback: str | None, *, same: bool
) -> None:
    """What a sign-up does with an address that has an account already."""
    await record(call, tx, "user.signed_up", owner_id=user.id, outcome="refused")
    pending = call.app.settings.require_email_verification and user.email_verified_at is None
    if pending and not same and user.password_hash is not None:
        user = msgspec.structs.replace(user, password_hash=None)
        await accounts.save_user(tx, user.id, {"password_hash": None, "updated_at": call.now})
        await accounts.forget_links(tx, user.id)
        await record(call, tx, "password.removed", owner_id=user.id)
    if user.disabled_at is not None or not await may_mail(call, tx, user.email):
        return
    if pending:
        await mail_verification(call, tx, user, callback)
    else:
        await outbox.put(call, tx, mails.address_in_use(call.app, user, call.now))


@operation(
    "POST",
    "/send-verification-email",
    access=Access.PUBLIC,
    accounts=True,
    tag="Accounts",
    errors=("INVALID_EMAIL", "INVALID_ORIGIN", "INVALID_CALLBACK_URL", "TOO_MANY_ATTEMPTS"),
)
async def send_verification_email(call: Call, asked: AskForLink) -> Status:
    """Mails a new verification link; the older ones stop.

    The answer is the same whether or not there is such an account, and whether or not it got as
    many mails as it may (3 a minute, 20 a day).
    """
    address = read_address(asked.email)
    callback = links.check_callback(call.app.settings, asked.callback_url)

    async def body(tx: Transaction) -> None:
        await throttle.limit_here(call, tx, throttle.ASK_FOR_MAIL)
        allowed = await may_mail(call, tx, address)
        user = await accounts.user_by_email(tx, address)
        waits = user is not None and user.email_verified_at is None and user.disabled_at is None
        owner = None if user is None else user.id
        if user is None or not waits or not allowed:
            await record(call, tx, "verification.requested", owner_id=owner, outcome="refused")
            return
        await record(call, tx, "verification.requested", owner_id=owner)
        await mail_verification(call, tx, user, callback)

    await call.app.database.write(body)
    call.app.wake_mail()
    return Status()


@operation(
    "GET",
    "/verify-email",
    access=Access.PUBLIC,
    accounts=True,
    tag="Accounts",
    errors=("INVALID_TOKEN", "INVALID_CALLBACK_URL"),
    redirects=True,
)
async def verify_email(call: Call, asked: OpenLink) -> Verified:
    """Verifies the address that a link was mailed to.

    Logs nobody in, so that a mail scanner which opens links opens nothing. The link works once.
    With `callbackURL` the answer is a redirect there, with `?error=INVALID_TOKEN` on failure.
    """
    callback = links.check_callback(call.app.settings, asked.callback_url)
    try:
        await _verify(call, asked.token)
    except Failure as failure:
        if callback is None:
            raise
        call.reply.location = links.with_parameter(callback, "error", failure.code)
        return Verified(status=False)
    call.reply.location = callback
    return Verified()


@operation(
    "POST",
    "/verify-email",
    access=Access.PUBLIC,
    accounts=True,
    tag="Accounts",
    errors=("INVALID_TOKEN",),
)
async def confirm_email(call: Call, asked: ConfirmLink) -> Verified:
    """Verifies the address that a link was mailed to, for a page with a button."""
    await _verify(call, asked.token)
    return Verified()


async def _verify(call: Call, token: str) -> None:
    await links.peek(call, token, links.VERIFY)  # a made-up token costs no write

    async def body(tx: Transaction) -> tuple[str, ...]:
        user = await links.redeem(call, tx, token, links.VERIFY)
        tags = await prove_ownership(call, tx, user)
        await accounts.forget_links(tx, user.id, purpose=links.VERIFY)
        await record(call, tx, "email.verified", owner_id=user.id, actor_id=user.id)
        return tags

    await call.app.change(body, tuple)


@operation(
    "POST",
    "/update-user",
    access=Access.SESSION,
    accounts=True,
    tag="Accounts",
    errors=("NO_VALUES_TO_UPDATE",),
)
async def update_user(call: Call, asked: UpdateUser) -> Status:
    """Changes the name, the picture or the language; the address cannot be changed."""
    user = await current_user(call)
    changes: dict[str, object] = {}
    if not isinstance(asked.name, UnsetType):
        changes["name"] = read_name(asked.name)
    if not isinstance(asked.image, UnsetType):
        changes["image"] = read_image(asked.image)
    if not isinstance(asked.locale, UnsetType):
        changes["locale"] = _read_locale(call, asked.locale)
    if not changes:
        raise Failure("NO_VALUES_TO_UPDATE")

    async def body(tx: Transaction) -> None:
        await accounts.save_user(tx, user.id, {**changes, "updated_at": call.now})
        fields = ",".join(sorted(changes))
        await record(call, tx, "user.updated", owner_id=user.id, fields=fields)

    await call.app.database.write(body)
    return Status()


@operation(
    "POST",
    "/delete-user",
    access=Access.SESSION,
    accounts=True,
    tag="Accounts",
    session="ends",
    errors=("INVALID_PASSWORD", "TOO_MANY_ATTEMPTS"),
)
async def delete_user(call: Call, asked: DeleteUser) -> Deleted:
    """Deletes the account of whoever is logged in: its keys and logins stop at once, for good."""
    user = await confirm_password(call, asked.password)

    async def body(tx: Transaction) -> tuple[str, ...]:
        await ensure_unchanged(tx, user, code="INVALID_PASSWORD")
        return await remove_user(call, tx, user)

    await call.app.change(body, tuple)
    call.app.wake_mail()
    call.reply.session = "end"
    return Deleted()


def _read_locale(call: Call, tag: str | None) -> str | None:
    locales = call.app.settings.locales
    if tag not in (None, *locales):
        raise Failure("VALIDATION_ERROR", f"locale must be one of: {', '.join(locales)}.")
    return tag


OPERATIONS = (
    sign_up_email,
    send_verification_email,
    verify_email,
    confirm_email,
    update_user,
    delete_user,
    *recovery.OPERATIONS,
)
