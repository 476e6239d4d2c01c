"""Who may call: from headers to the caller."""

from typing import Any

from keybearer.adapters.sql import keys as sql
from keybearer.domain.errors import Failure, Misuse
from keybearer.domain.model import (
    ANONYMOUS,
    ORGANIZATION,
    Anonymous,
    Kind,
    Refusal,
    Session,
    Verdict,
)
from keybearer.domain.permissions import missing
from keybearer.operations.app import App
from keybearer.operations.declaration import Access, Operation
from keybearer.verification.presented import Headers, Places
from keybearer.verification.verifier import NO_NEEDS

_EVERY: frozenset[Kind] = frozenset({"session", "access", "key", "service"})
_ACCEPTED: dict[Access, frozenset[Kind]] = {
    Access.PUBLIC: _EVERY,
    Access.OPTIONAL: frozenset({"session", "access"}),
    Access.SESSION: frozenset({"session", "access", "service"}),
    Access.MANAGER: frozenset({"session", "access", "service"}),
    Access.KEY: frozenset({"key"}),
    Access.OWNER: _EVERY,
    Access.SERVICE: _EVERY,
}
_STILL_HELD = frozenset({"KEY_DISABLED", "KEY_EXPIRED", "OWNER_DISABLED", "IP_NOT_ALLOWED"})


async def admit(
    app: App, declared: Operation[Any, Any], headers: Headers, ip: str | None
) -> tuple[Session | Anonymous, Verdict]:
    """The caller of an operation, and the verdict on what was presented.

    A management call costs neither limit nor quota: whoever is over the limit can still revoke.

    Raises:
        Failure: the caller is nobody, refused, or not one who may.
        Unavailable: a dependency is lost.
    """
    access = declared.access
    count = explicit(headers, app.verifier.places, look=looks(declared))
    if count > 1:
        raise Failure("MULTIPLE_CREDENTIALS")
    if not looks(declared):
        return ANONYMOUS, ANONYMOUS
    accepted = _ACCEPTED[access]
    as_owner = declared.keys and any(config.sessions for config in app.key_configs)
    if as_owner:
        accepted |= {"key"}
    verdict = await app.verifier.verify(headers, ip, NO_NEEDS, accept=accepted, charge=as_owner)
    if isinstance(verdict, Anonymous):
        verdict = await identified(app, headers)
    if access is Access.PUBLIC:
        return (verdict if isinstance(verdict, Session) else ANONYMOUS), verdict
    if access is Access.KEY and isinstance(verdict, Refusal) and verdict.code in _STILL_HELD:
        verdict = await _holder(app, verdict)
    if isinstance(verdict, Refusal):
        if access is Access.OPTIONAL and not count:
            return ANONYMOUS, verdict  # the cookie of a session that is over
        raise verdict.failure()
    if isinstance(verdict, Anonymous):
        if access is Access.OPTIONAL:
            return verdict, verdict
        raise Failure("UNAUTHORIZED")
    if access is Access.SERVICE and verdict.kind != "service":
        raise Failure("SERVICE_TOKEN_REQUIRED")
    if access is Access.SESSION and verdict.kind == "service":
        raise Failure("SESSION_REQUIRED", "A service token cannot do this: log in instead.")
    return verdict, verdict


async def identified(app: App, headers: Headers, needed: frozenset[str] = NO_NEEDS) -> Verdict:
    """Whoever is logged in to the host app, where it tells us, with what an owner holds there.

    For a request that presents no credential of ours.

    Raises:
        Misuse: it names somebody as we name organizations, whose keys would be theirs.
        Unavailable: the host app cannot tell.
    """
    owner = None if app.identify is None else await app.identify(headers)
    if owner is None:
        return ANONYMOUS
    if owner.startswith(ORGANIZATION):
        raise Misuse(f"identify= must not give an id that begins with {ORGANIZATION!r}")
    held = await app.holds(owner, "user")
    if held is not None and missing(held, needed):
        return Refusal(code="INSUFFICIENT_SCOPE", needed=needed)
    return Session(subject=owner, kind="session", id=owner, permissions=held)


def looks(declared: Operation[Any, Any]) -> bool:
    """Whether an operation looks at what was presented, be it only to tell."""
    return declared.access is not Access.PUBLIC or declared.verdict


def explicit(headers: Headers, places: Places | None = None, *, look: bool = True) -> int:
    """How many credentials were presented on purpose, not by a browser's cookie.

    Args:
        places: where keys may stand beside `X-API-Key`.
        look: whether anybody looks at them; else the host app's getter is not asked.

    Raises:
        Unavailable: the getter fails.
    """
    if places is not None:
        headers = places.told(headers) if look else places.named(headers)
    return sum(name in (b"authorization", b"x-api-key") for name, _ in headers)


async def _holder(app: App, refusal: Refusal) -> Verdict:
    """Whoever holds a key that is ours and not revoked, though it opens nothing now."""
    id = refusal.id or ""
    key = await app.database.read(lambda tx: sql.by_id(tx, id, now=app.clock.now()))
    if key is None:
        return refusal
    return Session(subject=key.owner_id, kind="key", id=key.id)
