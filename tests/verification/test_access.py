from collections.abc import Awaitable, Callable

import httpx2
import pytest
from sqlalchemy import delete, select, update

from keybearer.adapters.sql.tables import sessions, signing_keys, users
from keybearer.domain.jwt import AccessClaims, JwtRefusal, issue
from keybearer.domain.model import Bars, Grant, Refusal, User
from keybearer.domain.ports import Transaction
from keybearer.operations.app import App
from keybearer.verification.access import LEEWAY_SECONDS, AccessTokens
from keybearer.verification.signing import SigningKeys
from tests.people import START, StandingClock, log_in, person
from tests.verification.parts import grant

BASE = "http://127.0.0.1:8000"
SECONDS = START // 1000
HELD = frozenset({"deploy:run", "files:read", "files:write"})

Sign = Callable[..., Awaitable[bytes]]


@pytest.fixture
async def ada(app: App) -> User:
    return await person(app)


@pytest.fixture
async def sid(app: App, client: httpx2.AsyncClient, ada: User) -> str:
    await log_in(client)

    async def body(tx: Transaction) -> str:
        row = await tx.one(select(sessions.c.id))
        assert row is not None
        return str(row.id)

    return await app.database.read(body)


@pytest.fixture
def sign(app: App, ada: User, sid: str) -> Sign:
    async def signed(**changes: object) -> bytes:
        values: dict[str, object] = {
            "iss": BASE, "sub": ada.id, "aud": BASE, "exp": SECONDS + 300, "iat": SECONDS,
            "jti": "j", "sid": sid, "client_id": "cli", "scope": "files:read files:write",
        }  # fmt: skip
        claims = AccessClaims(**(values | changes))  # type: ignore[arg-type]
        return issue(await app.signing.signer(), claims).encode()

    return signed


async def run(app: App, statement: object) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(statement)

    await app.database.write(body)


async def granted(app: App, token: bytes) -> Grant:
    found = await app.access.grant(token)
    assert isinstance(found, Grant), found
    return found


async def bars(app: App, token: bytes) -> Bars:
    return (await granted(app, token)).bars or Bars()


async def test_the_grant_is_the_logins(app: App, ada: User, sid: str, sign: Sign) -> None:
    assert await granted(app, await sign()) == grant(
        "access", subject=ada.id, id=sid, session_id=sid,
        permissions=frozenset({"files:read", "files:write"}), expires_at=START + 300_000,
        authenticated_at=START,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "permissions"),
    [
        ("", frozenset()),
        ("files:read users:write", frozenset({"files:read"})),
        ("deploy:run files:read files:write", HELD),
    ],
)
async def test_permissions_are_what_the_token_says_as_far_as_the_owner_holds_it(
    app: App, sign: Sign, scope: str, permissions: frozenset[str]
) -> None:
    assert (await granted(app, await sign(scope=scope))).session.permissions == permissions


async def test_without_a_catalogue_scopes_limit_nobody(app: App, sign: Sign) -> None:
    async def holds(owner: str, role: str) -> None:
        return None

    open_ = AccessTokens(
        look_ups=app.database, signing=app.signing, clock=app.clock, holds=holds, issuer=BASE,
        must_verify=True,
    )  # fmt: skip
    found = await open_.grant(await sign())
    assert isinstance(found, Grant)
    assert found.session.permissions is None


async def test_no_token_outlives_its_login(app: App, sign: Sign) -> None:
    await run(app, update(sessions).values(expires_at=START + 60_000))
    assert (await granted(app, await sign())).session.expires_at == START + 60_000


async def test_a_login_that_ended_or_was_idle_is_revoked(
    app: App, sign: Sign, clock: StandingClock
) -> None:
    token = await sign()
    await run(app, update(sessions).values(idle_ms=60_000))
    assert (await bars(app, token)).revoked_at is None
    clock.advance(60_000)
    assert (await bars(app, token)).revoked_at == START + 60_000
    await run(app, update(sessions).values(idle_ms=90_000, ended_at=START + 1))
    assert (await bars(app, token)).revoked_at == START + 1


async def test_the_owner_may_be_unverified_disabled_or_gone(app: App, sign: Sign) -> None:
    token = await sign()
    await run(app, update(users).values(email_verified_at=None))
    assert (await bars(app, token)).owner_state == "unverified"
    await run(app, update(users).values(disabled_at=START))
    assert (await bars(app, token)).owner_state == "disabled"
    await run(app, delete(users))
    assert (await bars(app, token)).owner_state == "gone"
    assert (await granted(app, token)).session.role == "user"


async def test_the_owners_role_goes_along(app: App, sign: Sign) -> None:
    token = await sign()
    await run(app, update(users).values(role="admin"))
    assert (await granted(app, token)).session.role == "admin"


async def test_a_login_that_is_gone_or_somebody_elses_is_over(app: App, sign: Sign) -> None:
    ended = Refusal(code="SESSION_ENDED")
    assert await app.access.grant(await sign(sid="other")) == ended
    assert await app.access.grant(await sign(sub="other")) == ended


@pytest.mark.parametrize("token", [b"a.b.c", b"", b"..", b"\xff.\xff.\xff", b"x" * 10_000])
async def test_what_is_no_token_of_ours_is_refused(app: App, ada: User, token: bytes) -> None:
    assert await app.access.grant(token) == Refusal(code="INVALID_ACCESS_TOKEN")
    assert AccessTokens.refuses(await app.access.grant(token), START)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example"}, JwtRefusal.WRONG_ISSUER),
        ({"aud": "https://other.example"}, JwtRefusal.WRONG_AUDIENCE),
        ({"iat": SECONDS + LEEWAY_SECONDS + 1}, JwtRefusal.NOT_YET),
        ({"exp": SECONDS - LEEWAY_SECONDS}, JwtRefusal.EXPIRED),
    ],
)
async def test_claims_that_do_not_hold_are_refused(
    app: App, sign: Sign, changes: dict[str, object], reason: JwtRefusal
) -> None:
    token = await sign(**changes)
    assert await app.access.claims(token) is reason
    refusal = await app.access.grant(token)
    assert isinstance(refusal, Refusal)
    expired = reason is JwtRefusal.EXPIRED
    assert refusal.code == ("TOKEN_EXPIRED" if expired else "INVALID_ACCESS_TOKEN")


async def test_clocks_may_differ_but_no_token_lives_longer_for_it(
    app: App, sign: Sign, clock: StandingClock
) -> None:
    ahead = await sign(iat=SECONDS + LEEWAY_SECONDS, exp=SECONDS + 300)
    grant = await granted(app, ahead)
    assert not AccessTokens.refuses(grant, START + 299_999)
    assert AccessTokens.refuses(grant, START + 300_000)


async def test_an_expired_token_still_tells_its_login_so_that_it_can_be_ended(
    app: App, sid: str, sign: Sign, clock: StandingClock
) -> None:
    token = await sign()
    clock.advance(3_600_000)
    assert await app.access.grant(token) == Refusal(code="TOKEN_EXPIRED", id=sid)


async def test_a_key_that_another_process_made_is_found_within_two_seconds(
    app: App, ada: User, sid: str, sign: Sign, clock: StandingClock
) -> None:
    own = await sign()  # our list of keys is read now
    elsewhere = SigningKeys(
        database=app.database, ring=app.ring, clock=clock, interval_ms=1 << 50,
        token_ttl_ms=300_000, new_kid=lambda now: "foreign",
    )  # fmt: skip
    await elsewhere.rotate()
    made = (await elsewhere.known())["foreign"]
    claims = await app.access.claims(own)
    assert isinstance(claims, AccessClaims)
    token = issue(made, claims).encode()
    # It signs in ten minutes; a node whose clock is that far ahead has no business here.
    assert await app.access.claims(token) is JwtRefusal.UNKNOWN_KEY
    clock.advance(600_000 - LEEWAY_SECONDS * 1000)
    late = AccessClaims(
        iss=BASE, sub=ada.id, aud=BASE, exp=clock.now() // 1000 + 300, iat=clock.now() // 1000,
        jti="j", sid=sid, client_id="cli", scope="",
    )  # fmt: skip
    assert await app.access.claims(issue(made, late).encode()) == late


async def test_the_first_key_that_another_process_made_is_looked_for(
    app: App, sign: Sign, clock: StandingClock
) -> None:
    claims = await app.access.claims(await sign())
    assert isinstance(claims, AccessClaims)
    await run(app, delete(signing_keys))
    mine, elsewhere = (
        SigningKeys(
            database=app.database, ring=app.ring, clock=clock, interval_ms=1 << 50,
            token_ttl_ms=300_000, new_kid=str,
        )
        for _ in range(2)
    )  # fmt: skip
    assert await mine.known() == {}  # and is not read again for half a minute
    token = issue(await elsewhere.signer(), claims).encode()
    here = AccessTokens(
        look_ups=app.database, signing=mine, clock=clock, holds=app.holds, issuer=BASE,
        must_verify=True,
    )  # fmt: skip
    assert await here.claims(token) == claims
