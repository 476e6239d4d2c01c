"""Bearer tokens: log in, refresh, log out, revoke, introspect, publish the keys."""

from typing import Annotated

import msgspec

from keybearer.adapters.sql import accounts
from keybearer.adapters.sql import sessions as sql
from keybearer.adapters.sql.sessions import Family
from keybearer.domain import jwt as rules
from keybearer.domain.credentials import (
    RefreshToken,
    parse_refresh_token,
    refresh_token_holds,
)
from keybearer.domain.errors import Failure
from keybearer.domain.jwt import AccessClaims
from keybearer.domain.model import LoginSession
from keybearer.domain.ports import Transaction
from keybearer.operations.authentication import authenticate_password
from keybearer.operations.declaration import Access, Call, Empty, Input, Output, operation
from keybearer.operations.issuing import (
    DEFAULT_CLIENT,
    TokenPair,
    program_login,
    session_jwt,
    token_pair,
)
from keybearer.operations.logins import end_presented, log_out, open_login
from keybearer.operations.refreshing import Refreshed, alive, refresh_once
from keybearer.operations.sessions import LOGIN_ERRORS, Email, Password
from keybearer.operations.wire import Success

TAG = "Tokens"
_MAX_TOKEN = 8_192

Token = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_TOKEN)]
# Not `$`, which Python also finds before a line end.
ClientId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9._-]{1,64}(?![\s\S])",
        description="1 to 64 letters, digits, dots, underscores or hyphens",
    ),
]


class Login(Input, frozen=True, kw_only=True):
    """Who logs in, and by which program."""

    email: Email
    password: Password
    client_id: ClientId = DEFAULT_CLIENT


class Refresh(Input, frozen=True, kw_only=True):
    """The refresh token that was given last."""

    refresh_token: Token


class Logout(Input, frozen=True, kw_only=True):
    """The refresh token of the login to end, where no access token is at hand."""

    refresh_token: Token | None = None


class AboutToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token, and what its holder takes it for (RFC 7009 section 2.1, RFC 7662 section 2.1).

    OAuth clients send more, as `client_id`: what we do not know is ignored (RFC 6749 section 3.2).
    """

    token: Token
    token_type_hint: Annotated[str, msgspec.Meta(max_length=64)] | None = None

    def __repr__(self) -> str:
        return "AboutToken(…)"


class RevokeToken(AboutToken, frozen=True, kw_only=True):
    """The token to end; a program that names itself ends none of another program's."""

    client_id: str | None = None


class Introspection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What RFC 7662 section 2.2 says of a token; of an inactive one nothing but that.

    `token_type` is `Bearer` for an access token. A refresh token says `refresh_token`, and has no
    `aud` and no `scope`, so that nobody takes it for one that opens an endpoint.
    """

    active: bool
    scope: str | None = None
    client_id: str | None = None
    sub: str | None = None
    exp: int | None = None
    iat: int | None = None
    iss: str | None = None
    aud: str | None = None
    jti: str | None = None
    token_type: str | None = None


class AccessToken(Output, frozen=True, kw_only=True):
    """An access token."""

    token: str

    def __repr__(self) -> str:
        return "AccessToken(…)"


class JsonWebKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key (RFC 7517, RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str
    alg: str


class JsonWebKeySet(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that access tokens are signed with, newest first."""

    keys: list[JsonWebKey]


INACTIVE = Introspection(active=False)


@operation(
    "POST", "/login", access=Access.PUBLIC, accounts=True, tag=TAG, secret=True, errors=LOGIN_ERRORS
)
async def login(call: Call, asked: Login) -> TokenPair:
    """Logs a program in with an e-mail address and a password.

    First-party programs only: this is no OAuth grant. Keep the refresh token where the platform
    keeps secrets, and send the access token as `Authorization: Bearer`.
    """
    user = await authenticate_password(call, asked.email, asked.password)
    opened, family = program_login(call, user, asked.client_id)

    async def body(tx: Transaction) -> None:
        await open_login(call, tx, user, opened, with_token=False)
        await sql.add_family(tx, family)

    await call.app.database.write(body)
    return await token_pair(call, user, opened, family)


@operation("POST", "/refresh", access=Access.PUBLIC, accounts=True, tag=TAG, secret=True,
           errors=("INVALID_REFRESH_TOKEN", "TOO_MANY_ATTEMPTS"))  # fmt: skip
async def refresh(call: Call, asked: Refresh) -> TokenPair:
    """Gives a new access token and a new refresh token.

    Each refresh token works once. If the reply got lost, the same request within ten seconds
    gives the same successor. A spent token that comes later ends the login: it was stolen, or
    its holder keeps copies.
    """
    refreshed: Refreshed = await refresh_once(call, asked.refresh_token)
    return await token_pair(call, refreshed.user, refreshed.login, refreshed.family)


@operation("POST", "/logout", access=Access.PUBLIC, accounts=True, tag=TAG, verdict=True,
           session="ends",
           errors=("INVALID_ORIGIN", "SESSION_REQUIRED", "TOO_MANY_ATTEMPTS"))  # fmt: skip
async def logout(call: Call, asked: Logout) -> Success:
    """Ends a login: of the bearer token, of the cookie, or of the refresh token in the body.

    Its refresh family and its access tokens end at once, even if the access token presented has
    expired. Without any of them, and a second time, it says the same.
    """
    ended = await end_presented(call)
    if asked.refresh_token is not None:
        await _end_by_refresh_token(call, asked.refresh_token, but=ended)
    call.reply.session = "end"
    return Success()


@operation("POST", "/revoke", access=Access.PUBLIC, accounts=True, tag=TAG, form=True,
           errors=("TOO_MANY_ATTEMPTS",))  # fmt: skip
async def revoke_token(call: Call, asked: RevokeToken) -> Empty:
    """Ends a refresh or access token with the whole login that it belongs to (RFC 7009).

    Whoever has the token may. The answer is the same for a token that is not, or no longer, ours;
    clients ignore its body (RFC 7009 section 2.2).
    """
    await _end_by_refresh_token(call, asked.token, client_id=asked.client_id)
    claims = await call.app.access.claims(asked.token.encode("utf-8"))
    if isinstance(claims, AccessClaims) and asked.client_id in (None, claims.client_id):
        await log_out(call, claims.sub, [claims.sid])
    return Empty()


async def _end_by_refresh_token(
    call: Call, text: str, *, client_id: str | None = None, but: str | None = None
) -> None:
    """Ends the login of a refresh token that is ours, live or spent.

    Args:
        client_id: the only program whose token it may be.
        but: a login that this call has ended already.
    """
    token = parse_refresh_token(text.encode("utf-8"))
    if token is None:
        return

    async def find(tx: Transaction) -> LoginSession | None:
        family = await sql.family_by_id(tx, token.family)
        if family is None or not refresh_token_holds(call.app.ring, token, seed=family.seed):
            return None
        return await sql.by_id(tx, family.session_id)

    opened = await call.app.database.read(find)
    if opened is None or opened.id == but or client_id not in (None, opened.client_id):
        return
    await log_out(call, opened.user_id, [opened.id])


@operation(
    "POST", "/introspect", access=Access.SERVICE, accounts=True, tag=TAG, form=True, secret=True
)
async def introspect(call: Call, asked: AboutToken) -> Introspection:
    """Tells a service whether a refresh or access token is good now (RFC 7662)."""
    credential = asked.token.encode("utf-8")
    token = parse_refresh_token(credential)
    if token is not None:
        return await _introspect_refresh(call, token)
    claims = await call.app.access.claims(credential)
    grant = await call.app.access.grant(credential)
    if not isinstance(claims, AccessClaims) or call.app.access.refuses(grant, call.now):
        return INACTIVE
    return Introspection(
        active=True,
        scope=claims.scope,
        client_id=claims.client_id,
        sub=claims.sub,
        exp=claims.exp,
        iat=claims.iat,
        iss=claims.iss,
        aud=claims.aud,
        jti=claims.jti,
        token_type="Bearer",  # noqa: S106
    )


async def _introspect_refresh(call: Call, token: RefreshToken) -> Introspection:
    found = await call.app.database.read(lambda tx: _live_refresh(call, tx, token))
    if found is None:
        return INACTIVE
    family, opened = found
    return Introspection(
        active=True,
        client_id=opened.client_id,
        sub=family.user_id,
        exp=family.expires_at // 1000,
        iat=family.rotated_at // 1000,
        iss=call.app.settings.base_url,
        token_type="refresh_token",  # noqa: S106
    )


async def _live_refresh(
    call: Call, tx: Transaction, token: RefreshToken
) -> tuple[Family, LoginSession] | None:
    family = await sql.family_by_id(tx, token.family)
    if family is None or not refresh_token_holds(call.app.ring, token, seed=family.seed):
        return None
    opened = await sql.by_id(tx, family.session_id)
    user = await accounts.user_by_id(tx, family.user_id)
    live = token.generation == family.generation and call.now < family.expires_at
    if not live or opened is None or not alive(call, opened, user):
        return None
    return family, opened


@operation("GET", "/token", access=Access.SESSION, accounts=True, tag=TAG, secret=True)
async def get_token(call: Call, asked: Empty) -> AccessToken:
    """Gives an access token for the caller's login, for an app that checks it by the JWKS.

    Only the session itself gets one, by cookie or as Bearer: if an access token could fetch its
    own successor, a stolen one would live as long as the login.
    """
    session = call.session
    if session.kind != "session" or session.session_id is None:
        raise Failure("SESSION_REQUIRED", "A token cannot get another one: use the session.")
    return AccessToken(token=await session_jwt(call, session, session.session_id))


@operation(
    "GET",
    "/jwks",
    access=Access.PUBLIC,
    tag=TAG,
    aliases=(("GET", "/.well-known/jwks.json"),),
    cache_seconds=rules.JWKS_MAX_AGE_SECONDS,
    media_type="application/jwk-set+json",
)
async def get_jwks(call: Call, asked: Empty) -> JsonWebKeySet:
    """Publishes the keys to check access tokens with (RFC 7517)."""
    return msgspec.convert(rules.jwks(await call.app.signing.published()), JsonWebKeySet)


BEARER = (login, refresh, logout, revoke_token, introspect)
JWT = (get_token, get_jwks)
