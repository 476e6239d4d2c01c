"""What an operator does with users: make, list, disable, enable, delete.

No HTTP operations: the command and the app itself call these with a trusted `Call`.
"""

from contextlib import suppress
from functools import partial

from keybearer.adapters.sql import accounts, sessions
from keybearer.domain import emails
from keybearer.domain.errors import Failure
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction
from keybearer.operations.app import record, require_accounts
from keybearer.operations.authentication import check_new_password
from keybearer.operations.declaration import Call
from keybearer.operations.logins import record_ended, tags_of
from keybearer.operations.users import (
    mail_verification,
    new_user,
    read_address,
    read_name,
    remove_user,
)


async def create(
    call: Call,
    email: str,
    name: str,
    password: str | None = None,
    *,
    verified: bool = False,
    admin: bool = False,
) -> User:
    """Makes a user.

    Unless `verified`, a link is mailed: to verify the address, or without a password to choose
    one.

    Raises:
        Failure: USER_ALREADY_EXISTS, INVALID_EMAIL, VALIDATION_ERROR, PASSWORD_TOO_SHORT and
            its like, ADMIN_REQUIRED.
    """
    _require_operator(call)
    address, name = read_address(email), read_name(name)
    hashed = None
    if password is not None:
        normal = await check_new_password(call, password, (address, name))
        hashed = await call.app.hasher.hash(normal)
    user = new_user(
        call, email=address, name=name, password_hash=hashed, verified=verified, admin=admin
    )

    async def body(tx: Transaction) -> None:
        if (await accounts.add_user(tx, user)).id != user.id:
            raise Failure("USER_ALREADY_EXISTS")
        if not verified:
            await mail_verification(call, tx, user)
        await record(
            call,
            tx,
            "user.created",
            owner_id=user.id,
            target_id=user.id,
            role=user.role,
            verified=verified,
        )

    await call.app.database.write(body)
    call.app.wake_mail()
    return user


async def page(
    call: Call, *, search: str = "", limit: int = 100, offset: int = 0
) -> tuple[list[User], int]:
    """Users, newest first, and how many there are; `search` looks in address and name."""
    _require_operator(call)
    return await call.app.database.read(
        partial(accounts.page_of_users, search=search, limit=limit, offset=offset)
    )


async def find(call: Call, who: str) -> User:
    """The user with this id or this address, however it is spelt.

    Raises:
        Failure: USER_NOT_FOUND, ADMIN_REQUIRED.
    """
    _require_operator(call)
    return await call.app.database.read(partial(_find, who=who, lock=False))


async def disable(call: Call, who: str) -> User:
    """Ends every login of a user; keys and new logins are refused until `enable`.

    Returns when no process accepts anything of that user any more.

    Raises:
        Failure: USER_NOT_FOUND, ADMIN_REQUIRED.
        Unavailable: REVOCATION_PENDING, as `App.change`.
    """
    _require_operator(call)

    async def body(tx: Transaction) -> tuple[User, list[str]]:
        user = await _find(tx, who=who, lock=True)
        await accounts.forget_links(tx, user.id)
        ended = await sessions.end_all(tx, user.id, call.now)
        if user.disabled_at is None:
            changes = {"disabled_at": call.now, "updated_at": call.now}
            await accounts.save_user(tx, user.id, changes)
            await record(call, tx, "user.disabled", owner_id=user.id, target_id=user.id)
        await record_ended(call, tx, user.id, ended)
        return await _find(tx, who=user.id, lock=False), ended

    (user, _), _ = await call.app.change(body, _tags)
    return user


async def enable(call: Call, who: str) -> User:
    """Lets a disabled user log in again; keys that were not revoked work again.

    Raises:
        Failure: USER_NOT_FOUND, ADMIN_REQUIRED.
    """
    _require_operator(call)

    async def body(tx: Transaction) -> tuple[User, list[str]]:
        user = await _find(tx, who=who, lock=True)
        if user.disabled_at is not None:
            changes = {"disabled_at": None, "updated_at": call.now}
            await accounts.save_user(tx, user.id, changes)
            await record(call, tx, "user.enabled", owner_id=user.id, target_id=user.id)
        return await _find(tx, who=user.id, lock=False), []

    (user, _), _ = await call.app.change(body, _tags)
    return user


async def delete(call: Call, who: str) -> User:
    """Deletes a user, revokes the keys and ends the logins; the audit trail stays.

    Raises:
        Failure: USER_NOT_FOUND, ADMIN_REQUIRED.
        Unavailable: REVOCATION_PENDING, as `App.change`.
    """
    _require_operator(call)
    gone: list[User] = []

    async def body(tx: Transaction) -> tuple[str, ...]:
        user = await _find(tx, who=who, lock=True)
        gone.append(user)
        return await remove_user(call, tx, user)

    await call.app.change(body, tuple)
    call.app.wake_mail()
    return gone[-1]


def _require_operator(call: Call) -> None:
    require_accounts(call)
    if not call.trusted:
        raise Failure("ADMIN_REQUIRED")


async def _find(tx: Transaction, who: str, *, lock: bool) -> User:
    user = None
    if "@" not in who:
        user = await accounts.user_by_id(tx, who, lock=lock)
    else:
        with suppress(ValueError):  # what is no address is nobody's
            user = await accounts.user_by_email(tx, emails.normalise(who), lock=lock)
    if user is None:
        raise Failure("USER_NOT_FOUND")
    return user


def _tags(changed: tuple[User, list[str]]) -> tuple[str, ...]:
    user, ended = changed
    return (f"owner:{user.id}", *tags_of(ended))
