"""What a line of an export may say: as much as a request might, and no more.

A file may be anybody's. A hash that nobody can check would end logins, and a name of a key without
the hash that decides would open it to everybody who knows the name.
"""

import msgspec

from keybearer.domain import emails, records
from keybearer.domain.arrivals import ArrivingKey, ArrivingSecret
from keybearer.domain.foreign import SCHEMES, SLOW, Scheme, is_name, name_of
from keybearer.domain.foreignpasswords import kept
from keybearer.domain.instants import parse_iso
from keybearer.domain.model import Key, User
from keybearer.domain.networks import parse_allow_list
from keybearer.domain.uses import Count
from keybearer.operations import lines
from keybearer.operations.arriving import check_usable, password_of
from keybearer.operations.keyrules import (
    bounded_metadata,
    check_description,
    check_quota,
    check_rate_limit,
)
from keybearer.operations.lines import KeyLine, SecretLine, UsageLine, UserLine
from keybearer.operations.moving import Moving
from keybearer.operations.users import read_image, read_name
from keybearer.operations.wire import check_text

_LONGEST_NAME = 1000
_DIGEST_BYTES = 32


def user_from(moving: Moving, line: UserLine) -> User:
    """The user of a line.

    Raises:
        ValueError: something makes no sense; or a Failure, where a request with it is refused.
    """
    records.identifier({"id": line.id}, "id")
    user = lines.user_of(line)
    if emails.normalise(user.email) != user.email:
        raise ValueError("email is not in its normal form")
    read_name(user.name)
    read_image(user.image)
    if user.locale is not None:
        records.identifier({"locale": user.locale}, "locale")
    return msgspec.structs.replace(user, password_hash=password_of(moving, user.password_hash))


def key_from(moving: Moving, line: KeyLine) -> ArrivingKey:
    """The key of a line, with its secrets; raises as `user_from`."""
    records.identifier({"id": line.id}, "id")
    told = {
        "ownerId": line.owner_id, "configId": line.config_id, "createdBy": line.created_by,
        "prefix": line.prefix, "start": line.start, "revokedReason": line.revoked_reason,
        "lastUsedIp": line.last_used_ip, "lastUsedUserAgent": line.last_used_user_agent,
    }  # fmt: skip
    for name in told:
        records.text(told, name)
    records.required(told, "ownerId")
    key = lines.key_of(line)
    if len(check_text(key.name or "", "name")) > _LONGEST_NAME:
        raise ValueError(f"name has more than {_LONGEST_NAME} characters")
    check_description(key.description)
    check_quota(
        remaining=key.remaining,
        refill_amount=key.refill_amount,
        refill_interval_ms=key.refill_interval_ms,
    )
    _check_limit(key)
    records.number({"requestCount": key.request_count}, "requestCount")
    parse_allow_list(line.ip_allow)
    bounded_metadata(line.metadata)
    # A key whose prefix is none of ours has not our form: it is found as one of elsewhere.
    form: Scheme | None = None if key.prefix in moving.call.app.settings.key_prefix else "sha256"
    secrets = tuple(_secret_from(moving, secret, form) for secret in line.secrets)
    if len({secret.digest for secret in secrets}) < len(secrets):
        raise ValueError("it has a digest twice")
    if sum(secret.usable_until is None for secret in secrets) > 1:
        raise ValueError("it has two current secrets")
    if any(secret.scheme is not None for secret in secrets):
        check_usable(key)
    return ArrivingKey(key=key, secrets=secrets)


def count_from(line: UsageLine) -> Count:
    """What a line counted; raises as `user_from`."""
    records.identifier({"keyId": line.key_id}, "keyId")
    records.identifier({"outcome": line.outcome}, "outcome")
    records.number({"n": line.n}, "n")
    return lines.count_of(line)


def _check_limit(key: Key) -> None:
    """A limit that is off may lack a number, and has no wrong one."""
    maximum, window = key.rate_limit_max, key.rate_limit_window_ms
    if not key.rate_limit_enabled:
        maximum, window = maximum or 0, 1 if window is None else window
    check_rate_limit(enabled=True, maximum=maximum, window_ms=window)


def _secret_from(moving: Moving, line: SecretLine, form: Scheme | None) -> ArrivingSecret:
    digest, scheme = bytes.fromhex(line.digest), line.scheme or form
    records.text({"pepperId": line.pepper_id}, "pepperId")
    records.text({"start": line.start}, "start")
    found_elsewhere = line.pepper_id in SCHEMES
    if found_elsewhere:
        if line.scheme != line.pepper_id or not digest.startswith(name_of(line.scheme, b"")):
            raise ValueError("it has a digest of another scheme")
        fits = is_name(line.scheme, digest)
    else:
        fits = len(digest) == _DIGEST_BYTES
    if not fits:
        raise ValueError("a digest has the wrong length")
    if line.foreign_hash is not None and not (found_elsewhere and scheme in SLOW):
        raise ValueError("it has a hash where none decides")
    # At the first use our digest takes the place of both: one of ours needs no hash.
    ours = not found_elsewhere and moving.call.app.ring.find(line.pepper_id) is not None
    if line.foreign_hash is None and scheme in SLOW and not ours:
        raise ValueError("it has a name without the hash that decides")
    ends = line.usable_until
    return ArrivingSecret(
        digest=digest,
        pepper_id=line.pepper_id,
        created_at=parse_iso(line.created_at),
        start=line.start,
        usable_until=None if ends is None else parse_iso(ends),
        scheme=scheme,
        foreign_hash=None if line.foreign_hash is None else kept(line.foreign_hash),
    )
