"""What a key may be: each rule takes what was asked and gives what is stored."""

from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from keybearer.domain.errors import Failure
from keybearer.domain.limits import MAX_AMOUNT
from keybearer.domain.model import UNTIL_FINISHED, RateLimit
from keybearer.domain.networks import parse_allow_list
from keybearer.domain.permissions import missing, parse
from keybearer.operations.declaration import Call
from keybearer.operations.keyconfig import KeyConfig
from keybearer.operations.wire import check_text, is_admin, read_instant

Permissions = dict[str, list[str]]

Metadata = Annotated[object, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})]
"""Any JSON object; what else comes is refused by `check_metadata`, with a sentence."""

SERVER_ONLY = (
    "remaining",
    "refill_amount",
    "refill_interval",
    "rate_limit_enabled",
    "rate_limit_time_window",
    "rate_limit_max",
)
"""Fields that only the app, the command or a service may set."""

RULES = (
    "SERVER_ONLY_PROPERTY",
    "INVALID_NAME_LENGTH",
    "METADATA_DISABLED",
    "KEY_DISABLED_EXPIRATION",
    "INSUFFICIENT_API_KEY_PERMISSIONS",
    "INVALID_METADATA_TYPE",
    "INVALID_PERMISSIONS",
    "UNKNOWN_SCOPE",
    "SCOPE_NOT_HELD",
    "INVALID_IP_RANGE",
    "INVALID_RATE_LIMIT",
    "REFILL_AMOUNT_AND_INTERVAL_REQUIRED",
    "REFILL_INTERVAL_AND_AMOUNT_REQUIRED",
    "EXPIRES_IN_IS_TOO_SMALL",
    "EXPIRES_IN_IS_TOO_LARGE",
    "KEY_EXPIRY_REQUIRED",
)
"""The codes of the rules below."""

MAX_DESCRIPTION = 500
MAX_METADATA_BYTES = 4_096
MAX_METADATA_DEPTH = 5
MAX_GRACE_SECONDS = 30 * 86_400
MAX_RATE = 1_000_000_000
MAX_WINDOW_MS = 366 * 86_400_000

Grace = Annotated[int, msgspec.Meta(ge=0, le=MAX_GRACE_SECONDS)] | None
"""For how many seconds a replaced secret goes on; None: until somebody finishes the rotation."""


T = TypeVar("T")


def chosen(value: T | UnsetType, otherwise: T) -> T:
    """What was asked, or otherwise what holds anyway."""
    return otherwise if isinstance(value, UnsetType) else value


def may_create(call: Call) -> bool:
    """Whether the caller may make keys at all, by KEY_CREATION."""
    creation = call.app.settings.key_creation
    if call.trusted or creation == "everyone":
        return True
    return creation == "admins" and is_admin(call.session)


def check_name(config: KeyConfig, name: str | None) -> str | None:
    """A name as long as names may be, 1 to 64 characters unless configured, or none."""
    if name is None and config.require_name:
        raise Failure("NAME_REQUIRED")
    if name is None:
        return None
    shortest, longest = config.name_length
    if not shortest <= len(name) <= longest or not name.strip():
        raise Failure(
            "INVALID_NAME_LENGTH", f"The name must have {shortest} to {longest} characters."
        )
    return check_text(name, "name")


def check_description(description: str | None) -> str | None:
    """A description of up to 500 characters, with line breaks, or none."""
    if not description:
        return None
    if len(description) > MAX_DESCRIPTION:
        raise Failure("VALIDATION_ERROR", "description may have 500 characters at most.")
    return check_text(description, "description", lines=True)


def check_prefix(prefix: str | None, prefixes: tuple[str, ...]) -> str:
    """One of the server's prefixes; its first where none is asked."""
    if prefix is None:
        return prefixes[0]
    if prefix not in prefixes:
        raise Failure("INVALID_PREFIX", f"prefix must be one of: {', '.join(prefixes)}")
    return prefix


def check_metadata(config: KeyConfig, metadata: object) -> dict[str, object] | None:
    """The same as `bounded_metadata`, where keys have any."""
    if metadata is not None and not config.metadata:
        raise Failure("METADATA_DISABLED")
    return bounded_metadata(metadata)


def bounded_metadata(metadata: object) -> dict[str, object] | None:
    """A JSON object of at most 4 KB and five levels, or none."""
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or _depth(metadata) > MAX_METADATA_DEPTH:
        raise Failure("INVALID_METADATA_TYPE")
    if len(msgspec.json.encode(metadata)) > MAX_METADATA_BYTES:
        raise Failure("INVALID_METADATA_TYPE")
    return metadata


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def check_permissions(
    call: Call, asked: dict[str, list[str]] | UnsetType | None, *, held: frozenset[str] | None
) -> frozenset[str] | None:
    """Permissions out of the app's catalogue, and never more than the owner holds.

    Without a catalogue only the server may set them, as in Better Auth.
    """
    if asked is UNSET:
        return None
    catalogue = call.app.catalogue
    if not catalogue and not call.trusted:
        raise Failure("SERVER_ONLY_PROPERTY", "permissions can only be set by the server.")
    if asked is None:
        return None
    try:
        permissions = parse(asked)
    except ValueError as error:
        raise Failure("INVALID_PERMISSIONS", f"permissions: {error}") from None
    if not catalogue:
        return permissions
    unknown = missing(catalogue, permissions)
    if unknown:
        raise Failure("UNKNOWN_SCOPE", extra={"unknownPermissions": sorted(unknown)})
    lacking = frozenset() if held is None else missing(held, permissions)
    if lacking:
        raise Failure("SCOPE_NOT_HELD", extra={"lackingPermissions": sorted(lacking)})
    return permissions


def check_allow_list(entries: list[str] | None) -> tuple[str, ...]:
    """Canonical addresses and CIDRs; an empty list allows every address."""
    if not entries:
        return ()
    try:
        return parse_allow_list(entries)
    except ValueError as error:
        raise Failure("INVALID_IP_RANGE", f"ipAllow: {error}") from None


def check_rate_limit(
    *, enabled: bool, maximum: int | None, window_ms: int | None
) -> RateLimit | None:
    """A rate limit, or None where it is off; a maximum of 0 allows nothing."""
    if not enabled:
        return None
    if maximum is None or not 0 <= maximum <= MAX_RATE:
        raise Failure("INVALID_RATE_LIMIT", f"rateLimitMax must be from 0 to {MAX_RATE}.")
    if window_ms is None or not 1 <= window_ms <= MAX_WINDOW_MS:
        raise Failure(
            "INVALID_RATE_LIMIT", f"rateLimitTimeWindow must be from 1 to {MAX_WINDOW_MS}, in ms."
        )
    return RateLimit(maximum=maximum, window_ms=window_ms)


def check_quota(
    *, remaining: int | None, refill_amount: int | None, refill_interval_ms: int | None
) -> tuple[int | None, int | None, int | None]:
    """A quota and its refill; a refill without a quota starts with a full one."""
    if refill_amount is not None and refill_interval_ms is None:
        raise Failure("REFILL_AMOUNT_AND_INTERVAL_REQUIRED")
    if refill_interval_ms is not None and refill_amount is None:
        raise Failure("REFILL_INTERVAL_AND_AMOUNT_REQUIRED")
    for name, value, least in (
        ("remaining", remaining, 0),
        ("refillAmount", refill_amount, 1),
        ("refillInterval", refill_interval_ms, 1),
    ):
        if value is not None and not least <= value <= MAX_AMOUNT:
            raise Failure("INVALID_RATE_LIMIT", f"{name} must be from {least} to {MAX_AMOUNT}.")
    if remaining is None and refill_amount is not None:
        remaining = refill_amount
    return remaining, refill_amount, refill_interval_ms


def expiry(
    call: Call,
    config: KeyConfig,
    expires_in: int | UnsetType | None,
    expires_at: str | UnsetType | None,
    *,
    default: bool,
) -> int | None:
    """When a key ends: `expiresIn` seconds from now, or the instant `expiresAt`, or never.

    Args:
        default: whether the default lifetime applies where nothing is asked.
    """
    if expires_in is not UNSET and expires_at is not UNSET:
        raise Failure("VALIDATION_ERROR", "Give expiresIn or expiresAt, not both.")
    if expires_in is UNSET and expires_at is UNSET and default:
        return call.now + (config.default_lifetime or 0)
    if not config.custom_expiry and not call.trusted:
        raise Failure("KEY_DISABLED_EXPIRATION")
    if isinstance(expires_at, str):
        ends = read_instant(expires_at, "expiresAt")
    elif isinstance(expires_in, int):
        if expires_in > MAX_AMOUNT // 1000:
            raise Failure("EXPIRES_IN_IS_TOO_LARGE")
        ends = call.now + expires_in * 1000
    elif config.allow_no_expiry or call.trusted:
        return None
    else:
        raise Failure("KEY_EXPIRY_REQUIRED")
    if ends < call.now + config.min_lifetime:
        raise Failure("EXPIRES_IN_IS_TOO_SMALL")
    longest = config.max_lifetime or 0
    if ends > call.now + longest:
        raise Failure(
            "EXPIRES_IN_IS_TOO_LARGE",
            f"The key may live {longest // 86_400_000} days at most.",
        )
    return ends


def grace_end(now: int, grace: Grace) -> int:
    """When a replaced secret ends that gets this grace now."""
    return UNTIL_FINISHED if grace is None else now + grace * 1000
