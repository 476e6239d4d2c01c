"""Whether a grant may do what is asked, now, from here."""

from keybearer.domain.model import Grant, Refusal

_REVOKED = {"key": "KEY_REVOKED", "service": "INVALID_ACCESS_TOKEN"}
_EXPIRED = {"key": "KEY_EXPIRED", "access": "TOKEN_EXPIRED"}


def judge(grant: Grant, needed: frozenset[str], ip: str | None, now: int) -> Refusal | None:
    """The first reason to refuse, or None.

    The order is fixed, so that an answer tells no more than it must: revoked, replaced, disabled,
    expired, owner, network, permission.

    Args:
        needed: permissions that the endpoint asks for; none asks for none.
        ip: the client's address, or None where it is unknown (an allow-list then refuses).
        now: milliseconds since the epoch; a grant ends at `expires_at` exactly.
    """
    if grant.revoked_at is not None:
        return Refusal(code=_REVOKED.get(grant.kind, "SESSION_ENDED"), id=grant.id)
    if grant.usable_until is not None and now >= grant.usable_until:
        return Refusal(code="KEY_REVOKED", id=grant.id)
    if not grant.enabled:
        return Refusal(code="KEY_DISABLED", id=grant.id)
    if grant.expires_at is not None and now >= grant.expires_at:
        return Refusal(code=_EXPIRED.get(grant.kind, "SESSION_ENDED"), id=grant.id)
    if grant.owner_state != "active":
        code = "OWNER_DISABLED" if grant.kind == "key" else "SESSION_ENDED"
        return Refusal(code=code, id=grant.id)
    if grant.allow is not None and not grant.allow.admits(ip):
        return Refusal(code="IP_NOT_ALLOWED", id=grant.id)
    if grant.permissions is not None and not needed <= grant.permissions:
        return Refusal(code="INSUFFICIENT_SCOPE", needed=needed, id=grant.id)
    return None
