"""What is done to a user, whoever asks for it: made, mailed, proven, removed."""

from keybearer.adapters.sql import accounts, calendars, keys, sessions
from keybearer.domain import emails
from keybearer.domain.errors import Failure
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction
from keybearer.operations import links, mails, outbox, throttle
from keybearer.operations.app import record
from keybearer.operations.declaration import Call
from keybearer.operations.logins import record_ended, tags_of
from keybearer.operations.wire import check_text

_LONGEST_NAME = 100
_LONGEST_IMAGE = 2048


def new_user(
    call: Call,
    *,
    email: str,
    name: str,
    password_hash: str | None,
    image: str | None = None,
    verified: bool = False,
    admin: bool = False,
    locale: str | None = None,
) -> User:
    """A user who is yet to be written."""
    return User(
        id=call.app.new_id(call.now),
        email=email,
        name=name,
        image=image,
        role="admin" if admin else "user",
        locale=locale,
        email_verified_at=call.now if verified else None,
        disabled_at=None,
        password_hash=password_hash,
        created_at=call.now,
        updated_at=call.now,
    )


async def mail_verification(
    call: Call, tx: Transaction, user: User, callback: str | None = None
) -> None:
    """Mails what finishes a sign-up: a verification link, or without a password one to choose it.

    A link to choose a password never leads past the password: it is a reset (recovery.py).
    """
    if user.password_hash is None:
        token = await links.issue(call, tx, user, links.RESET)
        mail = mails.choose_password(call.app, user, token, call.now, callback)
    else:
        token = await links.issue(call, tx, user, links.VERIFY)
        mail = mails.verify_address(call.app, user, token, call.now, callback)
    await outbox.put(call, tx, mail)


async def may_mail(call: Call, tx: Transaction, address: str) -> bool:
    """Counts one more mail that somebody asked for; False when the inbox has had enough."""
    return await throttle.pace(call, tx, throttle.INBOX, address) is None


async def prove_ownership(call: Call, tx: Transaction, user: User) -> tuple[str, ...]:
    """Marks the address as its owner's; at the first proof everything of before ends.

    Returns:
        What verdicts depend on and was changed, for `App.change`.
    """
    if user.email_verified_at is not None:
        return ()
    await accounts.save_user(tx, user.id, {"email_verified_at": call.now, "updated_at": call.now})
    return await _end_everything(call, tx, user, reason="the address was proven to be its owner's")


async def remove_user(call: Call, tx: Transaction, user: User) -> tuple[str, ...]:
    """Deletes a user; keys are revoked and logins ended, and the audit trail stays.

    Returns:
        What verdicts depend on and was changed, for `App.change`.
    """
    touched = await _end_everything(call, tx, user, reason="owner deleted")
    await accounts.delete_user(tx, user.id)
    await outbox.put(call, tx, mails.account_deleted(call.app, user, call.now))
    await record(call, tx, "user.deleted", owner_id=user.id, target_id=user.id)
    return touched


async def _end_everything(
    call: Call, tx: Transaction, user: User, *, reason: str
) -> tuple[str, ...]:
    """Revokes the keys and ends the logins of a user, with an event for each."""
    # All rows before the first event: a log-out locks a login before the trail as well, so the
    # two never wait for each other.
    revoked = await keys.revoke_owners(tx, user.id, now=call.now, reason=reason)
    ended = await sessions.end_all(tx, user.id, call.now)
    calendar = await calendars.forget(tx, user.id)
    await _record_revoked(call, tx, user.id, revoked, reason, calendar=calendar)
    await record_ended(call, tx, user.id, ended)
    return (f"owner:{user.id}", *tags_of(ended))


async def revoke_keys(call: Call, tx: Transaction, owner_id: str, *, reason: str) -> list[str]:
    """Ends every key of an owner and the calendar, with an event for each; gives the keys' ids."""
    ids = await keys.revoke_owners(tx, owner_id, now=call.now, reason=reason)
    calendar = await calendars.forget(tx, owner_id)
    await _record_revoked(call, tx, owner_id, ids, reason, calendar=calendar)
    return ids


async def _record_revoked(
    call: Call, tx: Transaction, owner_id: str, ids: list[str], reason: str, *, calendar: bool
) -> None:
    for id in ids:
        await record(call, tx, "key.revoked", owner_id=owner_id, target_id=id, reason=reason)
    if calendar:
        await record(call, tx, "calendar.revoked", owner_id=owner_id, reason=reason)


def read_address(text: str) -> str:
    """The normal form of an address.

    Raises:
        Failure: INVALID_EMAIL, with the reason.
    """
    try:
        return emails.normalise(text)
    except ValueError as error:
        raise Failure("INVALID_EMAIL", str(error)) from None


def read_name(text: str) -> str:
    """A person's name: 1 to 100 characters, no control characters, no spaces around it.

    Raises:
        Failure: VALIDATION_ERROR.
    """
    name = check_text(text, "name").strip()
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise Failure("VALIDATION_ERROR", f"name must have 1 to {_LONGEST_NAME} characters.")
    return name


def read_image(url: str | None) -> str | None:
    """The https:// address of a picture, of 2048 characters at most, or none.

    Raises:
        Failure: VALIDATION_ERROR.
    """
    if url is None:
        return None
    if len(url) > _LONGEST_IMAGE or not url.startswith("https://") or not url.isprintable():
        raise Failure("VALIDATION_ERROR", "image must be an https:// address.")
    return url
