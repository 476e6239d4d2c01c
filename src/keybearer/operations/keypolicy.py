"""How an owner's keys stand, and what a new one may be."""

from keybearer.adapters.sql import accounts, keylists
from keybearer.adapters.sql.keylists import Summary
from keybearer.domain.model import Role
from keybearer.domain.permissions import ceiling, to_wire
from keybearer.domain.ports import Transaction
from keybearer.operations.declaration import Access, Call, Empty, Output, operation
from keybearer.operations.keyconfig import usual_config
from keybearer.operations.keyrules import may_create
from keybearer.settingvalues import DAY_MS

TAG = "API keys"
EXPIRING_MS = 7 * DAY_MS
UNUSED_MS = 90 * DAY_MS


class KeySummary(Output, frozen=True, kw_only=True):
    """How many keys there are, and how many of them are neither revoked nor expired (`live`).

    Of these `expiring` end within 7 days (a list's `expiringWithin=604800`), and `unused` were
    not used for 90 days (`unusedFor=7776000`). `limit` is how many may be live.
    """

    total: int
    live: int
    limit: int
    expiring: int
    unused: int


class KeyRate(Output, frozen=True, kw_only=True):
    """At most `max` requests in every interval of `timeWindow` milliseconds."""

    max: int
    time_window: int


class KeyPolicy(Output, frozen=True, kw_only=True):
    """What a new key may be; lifetimes are in seconds.

    The first of `prefixes` is the default. `permissions` is what the caller may give, and null
    where only the server sets permissions; `rateLimit` is null where a new key has none. With
    `customExpiry: false` only the server says when a key ends. Of several configurations of keys
    it is the default, or the first.
    """

    may_create: bool
    config_id: str
    prefixes: list[str]
    default_lifetime: int
    max_lifetime: int
    allow_no_expiry: bool
    custom_expiry: bool
    permissions: dict[str, list[str]] | None
    rate_limit: KeyRate | None
    max_keys: int
    live_keys: int


@operation("GET", "/api-key/summary", access=Access.MANAGER, tag=TAG, management=True)
async def summarize_keys(call: Call, asked: Empty) -> KeySummary:
    """Counts the caller's keys, and those that ask for a look: about to end, or long unused."""
    found = await _summary(call)
    return KeySummary(
        total=found.total,
        live=found.live,
        limit=call.app.settings.max_keys_per_owner,
        expiring=found.expiring,
        unused=found.unused,
    )


@operation("GET", "/api-key/policy", access=Access.MANAGER, tag=TAG, management=True)
async def get_key_policy(call: Call, asked: Empty) -> KeyPolicy:
    """Shows what a new key of the caller may be, before anything is asked for.

    `mayCreate` says whether the caller may make keys at all; `liveKeys` of `maxKeys` is another
    question.
    """
    settings = call.app.settings
    config = usual_config(call)
    rate = config.rate_limit or None
    return KeyPolicy(
        may_create=may_create(call),
        config_id=config.id,
        prefixes=list(config.prefixes or ()),
        default_lifetime=(config.default_lifetime or 0) // 1000,
        max_lifetime=(config.max_lifetime or 0) // 1000,
        allow_no_expiry=bool(config.allow_no_expiry) or call.trusted,
        custom_expiry=config.custom_expiry or call.trusted,
        permissions=await _permissions(call),
        rate_limit=None if rate is None else KeyRate(max=rate.maximum, time_window=rate.window_ms),
        max_keys=settings.max_keys_per_owner,
        live_keys=(await _summary(call)).live,
    )


async def _summary(call: Call) -> Summary:
    await call.app.verifier.usage.flush(call.now)

    async def body(tx: Transaction) -> Summary:
        return await keylists.summarize(
            tx,
            call.speaks_for,
            now=call.now,
            expires_before=call.now + EXPIRING_MS,
            unused_since=call.now - UNUSED_MS,
        )

    return await call.app.database.read(body)


async def _permissions(call: Call) -> dict[str, list[str]] | None:
    catalogue, owner_id = call.app.catalogue, call.speaks_for
    if not catalogue:
        return None
    if owner_id is None:
        return to_wire(catalogue)  # who speaks for anybody names the owner with the key
    held = await call.app.holds(owner_id, await _role(call, owner_id))
    return to_wire(catalogue if held is None else ceiling(catalogue, held))


async def _role(call: Call, owner_id: str) -> Role:
    """The owner's: the caller's own, unless the app itself acts for somebody."""
    if not (call.trusted and call.app.accounts):
        return call.session.role
    user = await call.app.database.read(lambda tx: accounts.user_by_id(tx, owner_id))
    return "user" if user is None else user.role


OPERATIONS = (summarize_keys, get_key_policy)
