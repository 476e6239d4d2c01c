"""Access tokens: read, and held against their session."""

from keybearer.adapters.sql import accounts, sessions
from keybearer.domain import jwt
from keybearer.domain.judgement import judge
from keybearer.domain.jwt import AccessClaims, JwtRefusal
from keybearer.domain.model import Grant, LoginSession, Refusal, Session, User, bars_of
from keybearer.domain.ports import Clock, Reading, Transaction
from keybearer.verification.owners import Holds, owner_state
from keybearer.verification.signing import SigningKeys

LEEWAY_SECONDS = 30
"""For how much the clocks of two nodes may differ. It lengthens no token's life: a grant ends at
`exp` exactly."""

_ANY_AGE_SECONDS = 2**40


class AccessTokens:
    """Reads access tokens for the verifier.

    A good signature is not enough on our own endpoints: the session must be alive, so that a
    logout ends its access tokens at once. Who checks them offline sees that within their life.

    Args:
        issuer: what `iss` and `aud` must say: BASE_URL.
        must_verify: whether unverified users' tokens are refused.
    """

    def __init__(
        self,
        *,
        look_ups: Reading,
        signing: SigningKeys,
        clock: Clock,
        holds: Holds,
        issuer: str,
        must_verify: bool,
    ) -> None:
        self._look_ups = look_ups
        self._signing = signing
        self._clock = clock
        self._holds = holds
        self._issuer = issuer
        self._must_verify = must_verify

    async def claims(self, token: bytes) -> AccessClaims | JwtRefusal:
        """What a token says, if we signed it and it has not expired."""
        read = await self._read(token)
        if read is JwtRefusal.UNKNOWN_KEY:
            # Perhaps another process made a key meanwhile.
            await self._signing.known("?")
            read = await self._read(token)
        return read

    async def _session_of(self, expired: bytes) -> str | None:
        """The login of a token whose time is over, so that it can still be logged out."""
        claims = await self._read(expired, leeway_seconds=_ANY_AGE_SECONDS)
        return claims.sid if isinstance(claims, AccessClaims) else None

    async def _read(
        self, token: bytes, *, leeway_seconds: int = LEEWAY_SECONDS
    ) -> AccessClaims | JwtRefusal:
        return jwt.read(
            token,
            await self._signing.known(),
            issuer=self._issuer,
            audience=self._issuer,
            now_seconds=self._clock.now() // 1000,
            leeway_seconds=leeway_seconds,
        )

    async def grant(self, token: bytes) -> Grant | Refusal:
        """The grant of a token; whether its session is alive is for the judgement."""
        claims = await self.claims(token)
        if isinstance(claims, JwtRefusal):
            if claims is not JwtRefusal.EXPIRED:
                return Refusal(code="INVALID_ACCESS_TOKEN")
            return Refusal(code="TOKEN_EXPIRED", id=await self._session_of(token))

        async def body(tx: Transaction) -> tuple[LoginSession | None, User | None]:
            login = await sessions.by_id(tx, claims.sid)
            return login, await accounts.user_by_id(tx, claims.sub)

        login, user = await self._look_ups.read(body)
        if login is None or login.user_id != claims.sub:
            return Refusal(code="SESSION_ENDED")
        now = self._clock.now()
        ended = login.ended_at if now < login.ends_at else login.ends_at
        role = "user" if user is None else user.role
        return Grant(
            session=Session(
                subject=claims.sub,
                kind="access",
                id=claims.sid,
                permissions=_scope(claims, await self._holds(claims.sub, role)),
                role=role,
                session_id=claims.sid,
                expires_at=min(claims.exp * 1000, login.expires_at),
                authenticated_at=login.authenticated_at,
            ),
            bars=bars_of(
                revoked_at=ended,
                owner_state=owner_state(user, must_verify=self._must_verify),
            ),
        )

    @staticmethod
    def refuses(grant: Grant | Refusal, now: int) -> bool:
        """Whether a token is good no more, for introspection."""
        return isinstance(grant, Refusal) or judge(grant, frozenset(), None, now) is not None


def _scope(claims: AccessClaims, held: frozenset[str] | None) -> frozenset[str] | None:
    """What the token says, as far as its owner still holds it; never more than either."""
    return None if held is None else held.intersection(claims.scope.split())
