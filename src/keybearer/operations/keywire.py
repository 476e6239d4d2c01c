"""How an API key looks on the wire."""

import msgspec

from keybearer.domain.credentials import Secret
from keybearer.domain.instants import iso
from keybearer.domain.limits import refill
from keybearer.domain.model import ORGANIZATION, Key, Status
from keybearer.domain.permissions import to_wire
from keybearer.operations.declaration import Output
from keybearer.operations.wire import Timestamp, instant


class ApiKey(Output, frozen=True, kw_only=True):
    """An API key's record; the secret is never in it."""

    id: str
    name: str | None
    description: str | None
    start: str
    prefix: str
    enabled: bool
    status: Status
    created_at: Timestamp
    updated_at: Timestamp
    expires_at: Timestamp | None
    revoked_at: Timestamp | None
    revoked_reason: str | None
    last_request: Timestamp | None
    last_used_ip: str | None
    last_used_user_agent: str | None
    request_count: int
    remaining: int | None
    refill_amount: int | None
    refill_interval: int | None
    last_refill_at: Timestamp | None
    rate_limit_enabled: bool
    rate_limit_time_window: int | None
    rate_limit_max: int | None
    permissions: dict[str, list[str]] | None
    metadata: dict[str, object] | None
    ip_allow: list[str]
    config_id: str
    reference_id: str


class CreatedApiKey(ApiKey, frozen=True, kw_only=True):
    """A key's record with the key itself, the only time; null when a retry found it made."""

    key: str | None

    def __repr__(self) -> str:
        return f"CreatedApiKey(id={self.id!r}, key='…')"


class ApiKeyPage(Output, frozen=True, kw_only=True):
    """A page of keys; `total` counts what the filters leave, before paging."""

    api_keys: list[ApiKey]
    total: int
    limit: int
    offset: int


class Revoked(Output, frozen=True, kw_only=True):
    """The receipt of a revocation: `nodes` had to stop, and that took `waitedMs`."""

    success: bool = True
    revoked_at: Timestamp
    nodes: int
    waited_ms: int


def key_record(key: Key, now: int) -> ApiKey:
    """A key for the wire."""
    remaining, last_refill_at = refill(
        key.remaining,
        key.refill_amount,
        key.refill_interval_ms,
        key.last_refill_at,
        key.created_at,
        now,
    )
    return ApiKey(
        id=key.id,
        name=key.name,
        description=key.description,
        start=key.start,
        prefix=key.prefix,
        enabled=key.enabled,
        status=key.status(now),
        created_at=iso(key.created_at),
        updated_at=iso(key.updated_at),
        expires_at=instant(key.expires_at),
        revoked_at=instant(key.revoked_at),
        revoked_reason=key.revoked_reason,
        last_request=instant(key.last_used_at),
        last_used_ip=key.last_used_ip,
        last_used_user_agent=key.last_used_user_agent,
        request_count=key.request_count,
        remaining=remaining,
        refill_amount=key.refill_amount,
        refill_interval=key.refill_interval_ms,
        last_refill_at=instant(last_refill_at),
        rate_limit_enabled=key.rate_limit_enabled,
        rate_limit_time_window=key.rate_limit_window_ms,
        rate_limit_max=key.rate_limit_max,
        permissions=None if key.permissions is None else to_wire(key.permissions),
        metadata=key.metadata,
        ip_allow=list(key.ip_allow),
        config_id=key.config_id,
        reference_id=key.owner_id.removeprefix(ORGANIZATION),
    )


def created(key: Key, secret: Secret | None, now: int) -> CreatedApiKey:
    """A new key for the wire, with its secret."""
    shown = None if secret is None else secret.reveal()
    return CreatedApiKey(**msgspec.structs.asdict(key_record(key, now)), key=shown)
