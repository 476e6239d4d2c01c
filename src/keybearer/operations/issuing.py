"""What a login is given: an access token, and a refresh token for the next."""

import msgspec

from keybearer.adapters.sql.sessions import Family
from keybearer.domain import jwt as rules
from keybearer.domain.credentials import refresh_token
from keybearer.domain.jwt import AccessClaims
from keybearer.domain.model import LoginSession, Role, Session, User
from keybearer.operations.declaration import Call, Output
from keybearer.operations.logins import new_login
from keybearer.operations.wire import UserRecord, user_record

DEFAULT_CLIENT = "keybearer"


class TokenPair(Output, frozen=True, kw_only=True):
    """An access token for `expiresIn` seconds, and what the next one is got with."""

    token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    user: UserRecord

    def __repr__(self) -> str:
        return "TokenPair(…)"


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an access token is for."""

    sub: str
    role: Role


def program_login(call: Call, user: User, client_id: str) -> tuple[LoginSession, Family]:
    """A program's login and its refresh family, yet to be written."""
    settings = call.app.settings
    login = new_login(
        call,
        user,
        client_id=client_id,
        life_ms=settings.refresh_absolute_ttl,
        idle_ms=settings.refresh_token_ttl,
    )
    family = Family(
        family=call.app.entropy(16).hex(),
        session_id=login.id,
        user_id=user.id,
        seed=call.app.entropy(16),
        generation=1,
        rotated_at=call.now,
        expires_at=min(call.now + settings.refresh_token_ttl, login.expires_at),
        absolute_expires_at=login.expires_at,
        ended_at=None,
    )
    return login, family


async def token_pair(call: Call, user: User, login: LoginSession, family: Family) -> TokenPair:
    """What a program goes on with: an access token, and the live refresh token of its family."""
    who = Holder(sub=user.id, role=user.role)
    access, lasts = await _access_token(
        call, who, login.id, login.client_id, until=login.expires_at
    )
    token = refresh_token(
        call.app.ring.newest,
        family=family.family,
        generation=family.generation,
        seed=family.seed,
    )
    return TokenPair(
        token=access,
        expires_in=lasts,
        refresh_token=token.reveal(),
        refresh_expires_in=(family.expires_at - call.now) // 1000,
        user=user_record(user),
    )


async def session_jwt(call: Call, session: Session, session_id: str) -> str:
    """An access token for who is logged in by a session token."""
    who = Holder(sub=session.subject, role=session.role)
    until = session.expires_at or call.now
    token, _ = await _access_token(call, who, session_id, DEFAULT_CLIENT, until=until)
    return token


async def _access_token(
    call: Call, who: Holder, sid: str, client_id: str, *, until: int
) -> tuple[str, int]:
    """An access token and its life in seconds; it never outlives its login, wherever it is read."""
    settings, now = call.app.settings, call.now // 1000
    exp = min(now + settings.access_token_ttl // 1000, until // 1000)
    held = await call.app.holds(who.sub, who.role)
    claims = AccessClaims(
        iss=settings.base_url,
        sub=who.sub,
        aud=settings.base_url,
        exp=exp,
        iat=now,
        jti=call.app.entropy(16).hex(),
        sid=sid,
        client_id=client_id,
        scope=" ".join(sorted(held or ())),
    )
    return rules.issue(await call.app.signing.signer(), claims), exp - now
