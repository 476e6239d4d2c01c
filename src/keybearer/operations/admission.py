"""Who may call an operation: from headers to the caller."""

from typing import Any

from keybearer.domain.errors import Failure
from keybearer.domain.model import ANONYMOUS, Anonymous, Kind, Refusal, Session, Verdict
from keybearer.operations.app import App
from keybearer.operations.declaration import Access, Operation
from keybearer.verification.presented import Headers
from keybearer.verification.verifier import NO_NEEDS

_EVERY: frozenset[Kind] = frozenset({"session", "access", "key", "service"})
_ACCEPTED: dict[Access, frozenset[Kind]] = {
    Access.PUBLIC: _EVERY,
    Access.OPTIONAL: frozenset({"session", "access"}),
    Access.SESSION: frozenset({"session", "access", "service"}),
    Access.KEY: frozenset({"key"}),
    Access.OWNER: _EVERY,
    Access.SERVICE: _EVERY,
}


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
    if access is Access.PUBLIC and not declared.verdict:
        return ANONYMOUS, ANONYMOUS
    verdict = await app.verifier.verify(
        headers, ip, NO_NEEDS, accept=_ACCEPTED[access], charge=False
    )
    if isinstance(verdict, Anonymous) and app.identify is not None:
        owner = await app.identify(headers)
        if owner is not None:
            verdict = Session(subject=owner, kind="session", id=owner)
    if access is Access.PUBLIC:
        return (verdict if isinstance(verdict, Session) else ANONYMOUS), verdict
    if isinstance(verdict, Refusal):
        if access is Access.OPTIONAL and not explicit(headers):
            return ANONYMOUS, verdict  # the cookie of a session that is over
        raise verdict.failure()
    if isinstance(verdict, Anonymous):
        if access is Access.OPTIONAL:
            return verdict, verdict
        raise Failure("UNAUTHORIZED")
    if access is Access.SERVICE and verdict.kind != "service":
        raise Failure("SERVICE_TOKEN_REQUIRED")
    return verdict, verdict


def explicit(headers: Headers) -> bool:
    """Whether a credential was presented on purpose, not by a browser's cookie."""
    return any(name in (b"authorization", b"x-api-key") for name, _ in headers)
