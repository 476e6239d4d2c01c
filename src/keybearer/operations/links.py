"""Links in mails: issue one, redeem it once, and where it may lead.

A token has 256 random bits, is stored as digest, and belongs to one user, one address and one
purpose; of each purpose only the newest works.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated
from urllib.parse import quote, urlsplit

import msgspec

from keybearer.adapters.sql import accounts
from keybearer.domain.credentials import Secret, mint_link_token
from keybearer.domain.errors import Failure
from keybearer.domain.model import User
from keybearer.domain.ports import Transaction
from keybearer.operations.app import App
from keybearer.operations.declaration import Call, Input
from keybearer.settings import Settings

VERIFY = "verify-email"
RESET = "reset-password"
LIFETIMES_MS = {VERIFY: 24 * 3_600_000, RESET: 3_600_000}

Find = Callable[..., Awaitable[accounts.Link | None]]

_LONGEST_CALLBACK = 2048
# Printable ASCII alone: browsers drop tabs and line breaks, read a backslash as a slash, and
# fold full-width slashes; none of them is needed in a URL that somebody wrote with care.
_PLAIN = re.compile(r"[!-\[\]-~]+")


Callback = Annotated[str, msgspec.Meta(max_length=_LONGEST_CALLBACK)] | None
Token = Annotated[str, msgspec.Meta(max_length=128)]


class OpenLink(Input, frozen=True, kw_only=True):
    """What stands in the link."""

    token: Token
    callback_url: Callback = msgspec.field(default=None, name="callbackURL")


async def issue(call: Call, tx: Transaction, user: User, purpose: str) -> Secret:
    """A new link's token for the user's present address; older ones of this purpose stop."""
    token = mint_link_token(call.app.entropy)
    link = accounts.Link(
        purpose=purpose,
        user_id=user.id,
        email=user.email,
        created_at=call.now,
        expires_at=call.now + LIFETIMES_MS[purpose],
    )
    await accounts.add_link(tx, link, digest=call.app.ring.digest(token.reveal().encode()))
    return token


async def peek(call: Call, token: str, purpose: str) -> User:
    """Whose link it is; the link stays.

    Raises:
        Failure: INVALID_TOKEN.
    """
    return await call.app.database.read(
        partial(_holder, call, accounts.peek_link, token, purpose, lock=False)
    )


async def redeem(call: Call, tx: Transaction, token: str, purpose: str) -> User:
    """Whose link it is, used up and the user's row locked; of many at once one gets it.

    Raises:
        Failure: INVALID_TOKEN, also when the address has changed or the account is disabled.
    """
    return await _holder(call, accounts.take_link, token, purpose, tx, lock=True)


async def _holder(
    call: Call,
    find: Find,
    token: str,
    purpose: str,
    tx: Transaction,
    *,
    lock: bool,
) -> User:
    digests = call.app.ring.digests(token.encode("utf-8", "surrogatepass"))
    link = await find(tx, digests, purpose=purpose, now=call.now)
    if link is None:
        raise Failure("INVALID_TOKEN")
    user = await accounts.user_by_id(tx, link.user_id, lock=lock)
    if user is None or user.email != link.email or user.disabled_at is not None:
        raise Failure("INVALID_TOKEN")
    return user


def key_page(app: App, locale: str, id: str, *, expired: bool) -> str:
    """Where a link about a key's expiry leads: to its rotation, or once it is over to the key.

    After a log-in, if need be: there is no secret in it.
    """
    return app.page(f"{locale}/account/api-keys/{id}{'' if expired else '/rotate'}")


def check_callback(
    settings: Settings, url: str | None, *, code: str = "INVALID_CALLBACK_URL"
) -> str | None:
    """Where a link may lead in the end: a path of ours, or an origin that is trusted.

    Args:
        code: what the field is refused with.

    Raises:
        Failure: that code for everything else, whoever sent it.
    """
    if url is None:
        return None
    if len(url) > _LONGEST_CALLBACK or not _PLAIN.fullmatch(url):
        raise Failure(code)
    if url.startswith("/") and "//" not in url.partition("?")[0]:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Failure(code) from None
    if f"{parts.scheme}://{parts.netloc}" not in (settings.origin, *settings.trusted_origins):
        raise Failure(code)
    return url


def with_parameter(url: str, name: str, value: str) -> str:
    """The URL with one more query parameter, before the fragment."""
    front, hash_mark, fragment = url.partition("#")
    joint = "&" if "?" in front else "?"
    return f"{front}{joint}{name}={quote(value, safe='')}{hash_mark}{fragment}"
