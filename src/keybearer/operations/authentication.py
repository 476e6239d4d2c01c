"""Is this the right password, and how often may one ask.

    reserve ──▶ hash ──▶ right: take the reservation back, forget the failures
       │                 wrong: it stays, as one more failure
       ├─ the account has none left: 429, nothing is hashed
       └─ the address has none left ──▶ hash ──▶ right, by one who has logged in from it: welcome
                                                 all else: 429

An attempt is reserved before it is evaluated, so a thousand guesses at once evaluate no more
than are left. Failures in a row are counted for each account apart for strangers and for the
addresses from which it has logged in before: nobody can lock a person out of the own desk.
Together they stop at 100 (NIST SP 800-63B-4 section 3.2.2), until the owner proves the address
with a reset. Whether an account exists changes neither the answer, nor the work, nor the limits.
Hashes that were imported cost more than ours, or less, until their owners log in: so whoever has no
account takes as long as whoever has the next address, and the time tells no one apart.

An address is often that of a whole office. Where somebody has used up its attempts, a wrong
password gets the same 429 after the same work whoever it is for, and the right one still opens
the account of a person who has logged in from there. Such attempts give way to all others.
"""

import logging
import re
from functools import partial

import msgspec

from keybearer.adapters.sql import accounts
from keybearer.domain import emails, passwords
from keybearer.domain.credentials import PepperRing
from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.model import User
from keybearer.domain.networks import throttle_bucket
from keybearer.domain.ports import Transaction
from keybearer.operations import throttle
from keybearer.operations.app import record
from keybearer.operations.declaration import Call

log = logging.getLogger(__name__)

STRANGERS_STOP = 80
KNOWN_STOP = 20

PASSWORD_CODES = (
    "PASSWORD_TOO_SHORT",
    "PASSWORD_TOO_LONG",
    "PASSWORD_TOO_COMMON",
    "INVALID_PASSWORD",
)
"""What `check_new_password` raises."""

_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")


class _Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation: whose account it would open, and where it is counted.

    `beyond` is None, or for how many milliseconds the address has no attempts left. `beside` is
    the hash of somebody else: where there is none, checking takes as long as for that one.
    """

    user: User | None
    account: bytes | None
    beyond: int | None = None
    beside: str | None = None


async def authenticate_password(call: Call, email: str, password: str) -> User:
    """The user whose address and password these are.

    The caller audits the success, and calls `ensure_unchanged` in the transaction that writes
    what the password has opened.

    Raises:
        Failure: INVALID_EMAIL_OR_PASSWORD; TOO_MANY_ATTEMPTS; and only after the right password
            EMAIL_NOT_VERIFIED and USER_DISABLED.
        Unavailable: too many passwords wait to be hashed, or the database is lost.
    """
    try:
        address = emails.normalise(email)
    except ValueError:
        address = None  # counted and hashed like any other
    attempt = await _reserve(call, address)
    right = await _is_right(call, attempt, password)
    if attempt.user is None or not right:
        _refuse_beyond(call, attempt)
        await _note_refusal(call, "login.failed", attempt.user, reason="password")
        raise Failure("INVALID_EMAIL_OR_PASSWORD")
    user = await _accept(call, attempt, attempt.user, password)
    code = _closed(call, user)
    if code is not None:
        await _note_refusal(call, "login.failed", user, reason=code)
        raise Failure(code)
    return user


async def confirm_password(call: Call, password: str) -> User:
    """The logged-in user, who has given the current password once more.

    Counted as a login is, so a stolen session guesses no faster than a stranger.

    Raises:
        Failure: UNAUTHORIZED, SESSION_REQUIRED, INVALID_PASSWORD, TOO_MANY_ATTEMPTS.
        Unavailable: as `authenticate_password`.
    """
    user = await current_user(call)
    attempt = await _reserve(call, user.email)
    if attempt.user is None or not await _is_right(call, attempt, password):
        _refuse_beyond(call, attempt)
        await _note_refusal(call, "password.refused", user, reason="password")
        raise Failure("INVALID_PASSWORD")
    return await _accept(call, attempt, attempt.user, password)


async def current_user(call: Call) -> User:
    """The row of the person who calls.

    Raises:
        Failure: UNAUTHORIZED without a login, SESSION_REQUIRED for a key.
    """
    session = call.session
    if session.kind not in ("session", "access"):
        raise Failure("SESSION_REQUIRED")
    user = await call.app.database.read(partial(accounts.user_by_id, id=session.subject))
    if user is None:
        raise Failure("UNAUTHORIZED")
    return user


async def ensure_unchanged(
    tx: Transaction, user: User, *, code: str = "INVALID_EMAIL_OR_PASSWORD"
) -> None:
    """Locks the user's row and makes sure that the password that was checked is still the one.

    A login that began before a reset, a disabling or a deletion must not end after it.

    Raises:
        Failure: `code`.
    """
    now = await accounts.user_by_id(tx, user.id, lock=True)
    if now is None or (now.password_hash, now.disabled_at) != (user.password_hash, None):
        raise Failure(code)


async def check_new_password(call: Call, password: str, about: tuple[str, ...]) -> str:
    """The normal form of a password that somebody wants to set.

    Args:
        about: what is known of the person: address, name.

    Raises:
        Failure: PASSWORD_TOO_SHORT, PASSWORD_TOO_LONG, PASSWORD_TOO_COMMON or INVALID_PASSWORD,
            with the reason as a sentence.
        Unavailable: too many passwords wait.
    """
    minimum = call.app.settings.password_min_length
    try:
        normal = passwords.normalise(password)
    except ValueError as error:
        code = "INVALID_PASSWORD" if _NO_CHARACTER.search(password) else "PASSWORD_TOO_LONG"
        raise Failure(code, str(error)) from None
    check = partial(passwords.check, normal, minimum=minimum, context=about)
    reason = await call.app.hasher.run(check)
    if reason is not None:
        code = "PASSWORD_TOO_SHORT" if len(normal) < minimum else "PASSWORD_TOO_COMMON"
        raise Failure(code, reason)
    return normal


def account_buckets(ring: PepperRing, email: str) -> tuple[bytes, bytes]:
    """Where wrong passwords of an account are counted: from strangers, from known addresses."""
    return (
        throttle.bucket(ring, "account", email),
        throttle.bucket(ring, "account.known", email),
    )


async def _reserve(call: Call, address: str | None) -> _Attempt:
    here = throttle.here(call)

    async def body(tx: Transaction) -> _Attempt:
        beyond = await throttle.pace(call, tx, throttle.LOGIN, here)
        if beyond is not None and (address is None or call.app.hasher.busy):
            raise throttle.too_many(beyond)
        if address is None:
            return _Attempt(user=None, account=None)
        user = await accounts.user_by_email(tx, address)
        # Asked for nobody as well: the same statements for every address.
        ips = await accounts.login_addresses(tx, "" if user is None else user.id)
        beside = await accounts.hash_beside(tx, address)
        known = here in {throttle_bucket(ip) for ip in ips}
        account = account_buckets(call.app.ring, address)[known]
        stop = KNOWN_STOP if known else STRANGERS_STOP
        if beyond is not None and not known:
            # Counted for the work alone, and all in one row: names are made up without end.
            user, stop = None, accounts.NEVER
            account = throttle.bucket(call.app.ring, "beyond", here)
        wait = await accounts.count_failure(tx, account, now=call.now, stop=stop)
        if wait is None:
            return _Attempt(user=user, account=account, beyond=beyond, beside=beside)
        if beyond is None:
            raise throttle.too_many(wait)
        return _Attempt(user=None, account=None, beyond=beyond, beside=beside)

    try:
        return await call.app.database.write(body)
    except Failure:
        _log_throttled(call)
        raise


def _refuse_beyond(call: Call, attempt: _Attempt) -> None:
    """What is wrong at an address without attempts left: as if it had not been looked at."""
    if attempt.beyond is not None:
        _log_throttled(call)
        raise throttle.too_many(attempt.beyond)


def _log_throttled(call: Call) -> None:
    log.info("login.throttled", extra={"request_id": call.facts.id})


async def _is_right(call: Call, attempt: _Attempt, password: str) -> bool:
    hashed = None if attempt.user is None else attempt.user.password_hash
    try:
        normal = passwords.normalise(password)
    except ValueError:
        hashed, normal = None, ""  # no password of anybody, at the price of one
    try:
        right = await call.app.hasher.verify(hashed, normal, like=attempt.beside)
        if not right and normal not in ("", password):
            # Who hashed it elsewhere may have taken it as it was typed; asked for nobody too.
            right = await call.app.hasher.verify(hashed, password, like=attempt.beside)
        return right
    except Unavailable:
        await call.app.database.write(partial(_take_back, call, attempt))
        raise


async def _accept(call: Call, attempt: _Attempt, user: User, password: str) -> User:
    hasher = call.app.hasher
    old = user.password_hash or ""
    new = await hasher.hash(passwords.normalise(password)) if hasher.needs_rehash(old) else old

    async def body(tx: Transaction) -> bool:
        await _take_back_pace(call, attempt, tx)
        await accounts.clear(tx, [attempt.account] if attempt.account is not None else [])
        return new == old or await accounts.rehash(tx, user.id, old=old, new=new)

    moved = await call.app.database.write(body)
    return msgspec.structs.replace(user, password_hash=new) if moved else user


async def _take_back_pace(call: Call, attempt: _Attempt, tx: Transaction) -> None:
    if attempt.beyond is None:
        await throttle.take_back(call, tx, throttle.LOGIN, throttle.here(call))


async def _take_back(call: Call, attempt: _Attempt, tx: Transaction) -> None:
    await _take_back_pace(call, attempt, tx)
    if attempt.account is not None:
        await accounts.take_back_failure(tx, attempt.account, now=call.now)


def _closed(call: Call, user: User) -> str | None:
    if user.disabled_at is not None:
        return "USER_DISABLED"
    if call.app.settings.require_email_verification and user.email_verified_at is None:
        return "EMAIL_NOT_VERIFIED"
    return None


async def _note_refusal(call: Call, event: str, user: User | None, *, reason: str) -> None:
    owner = None if user is None else user.id

    async def body(tx: Transaction) -> None:
        await record(call, tx, event, owner_id=owner, outcome="refused", reason=reason)

    await call.app.database.write(body)
