"""Check a key for an app that asks over HTTP, one or many."""

import asyncio
from functools import partial
from typing import Annotated

import msgspec

from keybearer.adapters.sql import keys as sql
from keybearer.domain.errors import Failure
from keybearer.domain.model import Kind, Refusal
from keybearer.domain.networks import canonical_address
from keybearer.domain.permissions import parse_needs
from keybearer.operations.app import App
from keybearer.operations.declaration import Access, Call, Input, Output, operation
from keybearer.operations.keyconfig import DEFAULT
from keybearer.operations.keywire import ApiKey, key_record
from keybearer.verification.cache import Entry
from keybearer.verification.presented import MAX_CREDENTIAL, Presented
from keybearer.verification.verifier import Verified

TAG = "Verification"
MAX_BATCH = 100
_KEYS: frozenset[Kind] = frozenset({"key"})


class VerifyKey(Input, frozen=True, kw_only=True):
    """A key to check, what it shall be allowed, from which address, and what that costs.

    A key of another configuration than `configId`, or than the default where there are several,
    is none.
    """

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CREDENTIAL)]
    permissions: dict[str, list[str]] | None = None
    ip: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    config_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    cost: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1


class VerifyBatch(Input, frozen=True, kw_only=True):
    """Up to 100 keys to check."""

    keys: Annotated[list[VerifyKey], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class VerifyError(Output, frozen=True, kw_only=True):
    """Why a key is not good: a stable code and a sentence."""

    code: str
    message: str
    details: dict[str, int] | None = None
    needed_permissions: list[str] | None = None


class Verification(Output, frozen=True, kw_only=True):
    """Whether a key is good, with its record, or why it is not."""

    valid: bool
    error: VerifyError | None
    key: ApiKey | None


class VerificationBatch(Output, frozen=True, kw_only=True):
    """One answer for each key, in the order in which they were asked."""

    results: list[Verification]


@operation("POST", "/api-key/verify", access=Access.SERVICE, tag=TAG, secret=True,
           errors=("INVALID_PERMISSIONS",))  # fmt: skip
async def verify_api_key(call: Call, asked: VerifyKey) -> Verification:
    """Checks an API key, and counts the use against its limit and quota.

    The answer is always 200; `valid` tells. `ip` is the address of the client that presented the
    key to you: without it a key that is bound to networks is refused. `cost` 0 only looks.
    """
    return await verify(call.app, asked)


@operation("POST", "/api-key/verify-batch", access=Access.SERVICE, tag=TAG, secret=True)
async def verify_api_keys(call: Call, asked: VerifyBatch) -> VerificationBatch:
    """Checks up to 100 API keys; each counts for itself.

    One that asks for what cannot be asked, permissions that are none or an address that is none,
    is answered with that `error`: the others have been counted, and have their answers.
    """
    results = await asyncio.gather(*(_one_of_many(call.app, each) for each in asked.keys))
    return VerificationBatch(results=list(results))


async def _one_of_many(app: App, asked: VerifyKey) -> Verification:
    try:
        return await verify(app, asked)
    except Failure as failure:
        error = VerifyError(code=failure.code, message=failure.message)
        return Verification(valid=False, error=error, key=None)


async def verify(app: App, asked: VerifyKey) -> Verification:
    """The same for an app that was let in already.

    Raises:
        Failure: it asks for what cannot be asked; nothing is counted.
        Unavailable: a dependency is lost.
    """
    return await told(app, asked, await check(app, asked))


async def check(app: App, asked: VerifyKey) -> Verified | Refusal:
    """The verdict alone; raises as `verify`."""
    try:
        needed = parse_needs(asked.permissions)
    except ValueError as error:
        raise Failure("INVALID_PERMISSIONS", f"permissions: {error}") from None
    if asked.ip is not None and canonical_address(asked.ip) is None:
        raise Failure("VALIDATION_ERROR", "ip must be an IPv4 or IPv6 address.")
    presented = Presented(asked.key.encode("utf-8", "surrogatepass"), "header", None)
    entry: Entry | None = None
    if asked.config_id is not None or len(app.key_configs) > 1:
        found = await app.verifier.seen(presented)
        if isinstance(found, Refusal) or not _is_of(found, asked.config_id or DEFAULT):
            return Refusal(code="INVALID_API_KEY")  # of another, whatever its state is
        entry = found
    return await app.verifier.check(
        presented, asked.ip, needed, accept=_KEYS, charge=asked.cost, entry=entry
    )


async def told(app: App, asked: VerifyKey, verified: Verified | Refusal) -> Verification:
    """The answer that tells a verdict."""
    if isinstance(verified, Refusal):
        return Verification(valid=False, error=_error(verified, asked.cost), key=None)
    return Verification(valid=True, error=None, key=await _record(app, verified))


def _is_of(entry: Entry, config_id: str) -> bool:
    """Whether it is a key of that configuration."""
    record = entry.grant.record
    return record is not None and record.config_id == config_id


async def _record(app: App, verified: Verified) -> ApiKey | None:
    """The record as this very check has left it."""
    now = app.clock.now()
    if verified.left is not None or not verified.grant.metered:
        key = verified.record()
    else:
        # What is left changes with every use: the cached record does not know it.
        id = verified.grant.id
        await app.verifier.quota.give_back(id)
        key = await app.database.read(partial(sql.by_id, id=id, now=now))
        key = None if key is None else verified.record(key)
    return None if key is None else key_record(key, now)


def _error(refusal: Refusal, cost: int) -> VerifyError:
    limit = refusal.limit
    if limit is not None and cost > limit.maximum:
        # It would never be given: to try again later does not help.
        quota = refusal.code == "USAGE_EXCEEDED"
        of = "quota is refilled with" if quota else "rate limit is"
        message = f"cost is {cost}, and the key's {of} {limit.maximum}."
        return VerifyError(code=refusal.code, message=message)
    return VerifyError(
        code=refusal.code,
        message=refusal.message,
        details=None if refusal.retry_after_ms is None else {"tryAgainIn": refusal.retry_after_ms},
        needed_permissions=sorted(refusal.needed) or None,
    )


OPERATIONS = (verify_api_key, verify_api_keys)
