"""Whether a grant may do what is asked, now, from here."""

from keybearer.domain.model import Bars, Grant, Refusal, Session

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
    session = grant.session
    if grant.bars is not None:
        code = _barred(grant.bars, session, ip, now)
        if code is not None:
            return Refusal(code=code, id=session.id)
    elif session.expires_at is not None and now >= session.expires_at:
        return Refusal(code=_EXPIRED.get(session.kind, "SESSION_ENDED"), id=session.id)
    if session.permissions is not None and not needed <= session.permissions:
        return Refusal(code="INSUFFICIENT_SCOPE", needed=needed, id=session.id)
    return None


def _barred(bars: Bars, session: Session, ip: str | None, now: int) -> str | None:
    """The code of what comes before the permissions; None where nothing does."""
    kind = session.kind
    if bars.revoked_at is not None:
        return _REVOKED.get(kind, "SESSION_ENDED")
    if bars.usable_until is not None and now >= bars.usable_until:
        return "KEY_REVOKED"
    if not bars.enabled:
        return "KEY_DISABLED"
    if session.expires_at is not None and now >= session.expires_at:
        return _EXPIRED.get(kind, "SESSION_ENDED")
    if bars.owner_state != "active":
        return "OWNER_DISABLED" if kind == "key" else "SESSION_ENDED"
    if bars.allow is not None and not bars.allow.admits(ip):
        return "IP_NOT_ALLOWED"
    return None
