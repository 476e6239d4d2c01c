"""What the database says of a credential, through changes of SECRET and of the settings."""

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, update

from keybearer import Auth, Session
from keybearer.adapters.sql.tables import api_key_secrets, api_keys, sessions, users
from keybearer.domain.credentials import mint, service_token_hash
from keybearer.domain.foreign import NO_SCHEMES, SCHEMES, Scheme, name_of
from keybearer.domain.limits import SlidingWindow
from keybearer.domain.model import (
    ORGANIZATION,
    Bars,
    Grant,
    Kind,
    RateLimit,
    Refusal,
    Role,
    Verdict,
)
from keybearer.domain.ports import Row, Transaction
from keybearer.operations import service_tokens
from keybearer.operations.app import App
from keybearer.operations.keyends import RotateKey
from keybearer.operations.keys import CreateKey
from keybearer.operations.verify import VerifyBatch, VerifyKey
from keybearer.verification.foreign import SlowHashes
from keybearer.verification.grants import StoredGrants
from keybearer.verification.limiter import Limiter
from tests.people import PASSWORD, SECRET, START, StandingClock, call_of, person

NEWER = "a-newer-secret-Kp4sV8nB2mX7cL3qW9tR"
SERVICE: frozenset[Kind] = frozenset({"service"})


@contextlib.asynccontextmanager
async def running(auth: Auth) -> AsyncIterator[Auth]:
    async with auth.lifespan():
        yield auth


async def verdict(app: App, credential: str, accept: frozenset[Kind] | None = None) -> Verdict:
    headers = [(b"authorization", b"Bearer " + credential.encode())]
    if accept is None:
        return await app.verifier.verify(headers, "203.0.113.7")
    return await app.verifier.verify(headers, "203.0.113.7", accept=accept)


async def digests(app: App) -> list[tuple[bytes, str]]:
    async def body(tx: Transaction) -> list[Row]:
        return list(await tx.all(api_key_secrets.select()))

    return [(bytes(row.digest), row.pepper_id) for row in await app.database.read(body)]


async def test_a_key_outlives_the_rotation_of_secret(ready_url: str, clock: StandingClock) -> None:
    async with running(Auth(ready_url, secret=SECRET, accounts=False, clock=clock)) as before:
        made = await before.api.create_api_key(CreateKey(name="old"), owner="ann")
    key = made.key or ""
    both = f"{NEWER},{SECRET}"
    async with running(Auth(ready_url, secret=both, accounts=False, clock=clock)) as during:
        app = await during.running()
        old = await digests(app)
        assert isinstance(await verdict(app, key), Session)
        # Found under the old pepper, and moved to the new one at its first use.
        assert await digests(app) == [(app.ring.digest(key.encode()), app.ring.newest.id)]
        assert await digests(app) != old
    async with running(Auth(ready_url, secret=NEWER, accounts=False, clock=clock)) as after:
        assert isinstance(await verdict(await after.running(), key), Session)


async def test_service_tokens_may_stand_in_the_settings(
    ready_url: str, clock: StandingClock
) -> None:
    token = mint("kbs_", os.urandom).reveal()
    listed = Auth(
        ready_url,
        secret=SECRET,
        service_tokens=[service_token_hash(token.encode())],
        clock=clock,
    )
    async with listed.lifespan():
        app = await listed.running()
        accepted = await verdict(app, token, SERVICE)
        assert isinstance(accepted, Session)
        assert accepted.kind == "service"
        other = await verdict(app, mint("kbs_", os.urandom).reveal(), SERVICE)
        assert not isinstance(other, Session)


async def test_a_key_of_a_user_who_is_gone_or_unverified_is_refused(auth: Auth, app: App) -> None:
    unverified = await person(app, "new@example.com", verified=False)
    made = await auth.api.create_api_key(CreateKey(user_id=unverified.id))
    asked = VerifyKey(key=made.key or "")
    refused = await auth.api.verify_api_key(asked)
    assert refused.error is not None
    assert refused.error.code == "OWNER_DISABLED"


async def test_an_item_that_makes_no_sense_does_not_sink_the_others(auth: Auth, app: App) -> None:
    user = await person(app)
    made = await auth.api.create_api_key(CreateKey(user_id=user.id, prefix="kb_"))
    good = VerifyKey(key=made.key or "")
    odd = VerifyKey(key=made.key or "", permissions={"files": []})
    answer = await auth.api.verify_api_keys(VerifyBatch(keys=[odd, good]))
    assert [result.valid for result in answer.results] == [False, True]
    assert answer.results[0].error is not None
    assert answer.results[0].error.code == "INVALID_PERMISSIONS"


# --- each column has its place --------------------------------------------------------------------

HELD = {"user": frozenset({"files:read", "deploy:run"}), "admin": frozenset({"users:write"})}
LIMIT = RateLimit(maximum=5, window_ms=64_000)


async def holds(_owner: str, role: Role) -> frozenset[str] | None:
    return HELD[role]


def stored(app: App, **changes: Any) -> StoredGrants:
    wiring: dict[str, Any] = {
        "look_ups": app.database, "database": app.database, "clock": app.clock, "ring": app.ring,
        "limiter": Limiter(),
        "holds": holds, "accounts": True, "must_verify": True, "hashes": (),
        "access": app.access.grant, "slow": SlowHashes(_no_slow_hash),
    }  # fmt: skip
    return StoredGrants(**(wiring | changes))


async def _no_slow_hash(_hashed: str, _part: bytes) -> bool:
    raise AssertionError("no key here was made elsewhere")


async def run(app: App, statement: object) -> None:
    async def body(tx: Transaction) -> None:
        await tx.run(statement)

    await app.database.write(body)


async def key_of(auth: Auth, owner: str, **asked: Any) -> tuple[str, bytes]:
    made = await auth.api.create_api_key(CreateKey(user_id=owner, name="ci", **asked))
    return made.id, (made.key or "").encode()


def bars(found: Grant | None) -> Bars:
    assert found is not None
    return found.bars or Bars()


async def test_the_grant_of_a_key_is_what_its_columns_say(auth: Auth, app: App) -> None:
    ada = await person(app)
    id, key = await key_of(
        auth, ada.id, expires_in=3600, permissions={"files": ["read", "write"]},
        rate_limit_enabled=False,
    )  # fmt: skip
    found = await stored(app).key(key)
    assert found is not None
    assert found.session == Session(
        subject=ada.id, kind="key", id=id, permissions=frozenset({"files:read"}), role="user",
        name="ci", expires_at=START + 3_600_000,
    )  # fmt: skip
    assert (found.bars, found.secret_digest, found.limit, found.metered) == (None,) * 3 + (False,)
    assert found.record is not None
    assert (found.record.id, found.record.name) == (id, "ci")
    assert await stored(app).key(key + b"x") is None


async def test_an_admins_key_has_what_admins_hold(auth: Auth, app: App) -> None:
    root = await person(app, admin=True)
    asked = {"files": ["read"], "users": ["write"]}
    _, key = await key_of(auth, root.id, permissions=asked)
    found = await stored(app).key(key)
    assert found is not None
    assert (found.session.role, found.session.permissions) == ("admin", frozenset({"users:write"}))

    async def nothing_limits(_owner: str, _role: Role) -> None:
        return None

    whole = await stored(app, holds=nothing_limits).key(key)
    assert whole is not None
    assert whole.session.permissions == frozenset({"files:read", "users:write"})


async def test_what_stands_in_the_way_of_a_key_is_in_its_grant(auth: Auth, app: App) -> None:
    ada = await person(app)
    _, key = await key_of(auth, ada.id, ip_allow=["203.0.113.7"])
    assert bars(await stored(app).key(key)).enabled
    await run(app, update(api_keys).values(enabled=False, revoked_at=START + 1))
    found = bars(await stored(app).key(key))
    assert (found.enabled, found.revoked_at, found.owner_state) == (False, START + 1, "active")
    assert found.allow is not None
    assert found.allow.entries == ("203.0.113.7",)


async def test_the_owner_of_a_key_may_be_unverified_disabled_or_gone(auth: Auth, app: App) -> None:
    ada = await person(app)
    _, key = await key_of(auth, ada.id)
    states = []
    for change in (
        update(users).values(email_verified_at=None),
        update(users).values(disabled_at=START),
        delete(users),
    ):
        await run(app, change)
        found = [
            await stored(app).key(key),
            await stored(app, must_verify=False).key(key),
            await stored(app, accounts=False).key(key),
        ]
        states.append([bars(each).owner_state for each in found])
        assert {each.session.role for each in found if each is not None} == {"user"}
    assert states == [
        ["unverified", "active", "active"],
        ["disabled", "disabled", "active"],
        ["gone", "gone", "active"],
    ]


async def test_an_organization_is_no_user_and_active(auth: Auth, app: App) -> None:
    ada = await person(app)
    _, key = await key_of(auth, ada.id)
    await run(app, update(api_keys).values(owner_id=f"{ORGANIZATION}acme"))
    assert bars(await stored(app).key(key)).owner_state == "active"


async def test_each_secret_of_a_rotating_key_is_known_by_its_digest(auth: Auth, app: App) -> None:
    ada = await person(app)
    id, old = await key_of(auth, ada.id)
    made = await auth.api.rotate_api_key(RotateKey(key_id=id, grace_period=60), owner=ada.id)
    new = (made.key or "").encode()
    before, after = await stored(app).key(old), await stored(app).key(new)
    assert before is not None
    assert after is not None
    assert (before.session.replaced, bars(before).usable_until) == (True, START + 60_000)
    assert (after.session.replaced, bars(after).usable_until) == (False, None)
    digests = [app.ring.digest(secret) for secret in (old, new)]
    assert [before.secret_digest, after.secret_digest] == digests


async def test_a_limit_goes_on_where_a_process_before_has_stopped(auth: Auth, app: App) -> None:
    ada = await person(app)
    id, key = await key_of(
        auth, ada.id, remaining=10, rate_limit_enabled=True, rate_limit_max=5,
        rate_limit_time_window=64_000,
    )  # fmt: skip
    window = SlidingWindow(5, 64_000)
    window.take(START, 3)
    await run(app, update(api_keys).values(limit_state=window.dump()))
    limiter = Limiter()
    found = await stored(app, limiter=limiter).key(key)
    assert found is not None
    assert (found.limit, found.metered) == (LIMIT, True)
    assert limiter.window(id, LIMIT, START).remaining(START) == 2


@pytest.mark.parametrize(
    ("columns", "limit"),
    [
        ({"rate_limit_enabled": False}, None),
        ({"rate_limit_max": None}, None),
        ({"rate_limit_window_ms": None}, None),
        ({}, LIMIT),
    ],
)
async def test_a_limit_is_on_and_whole_or_none(
    auth: Auth, app: App, columns: dict[str, object], limit: RateLimit | None
) -> None:
    ada = await person(app)
    _, key = await key_of(
        auth, ada.id, rate_limit_enabled=True, rate_limit_max=5, rate_limit_time_window=64_000
    )
    await run(app, update(api_keys).values(request_count=0, **columns))
    found = await stored(app).key(key)
    assert found is not None
    assert found.limit == limit


async def test_the_grant_of_a_login_is_what_its_columns_say(
    app: App, client: httpx2.AsyncClient, clock: StandingClock
) -> None:
    root = await person(app, admin=True)
    asked = {"email": root.email, "password": PASSWORD}
    answer = await client.post("/api/auth/sign-in/email", json=asked)
    token: bytes = answer.json()["token"].encode()
    await run(app, update(sessions).values(idle_ms=60_000, expires_at=START + 100_000))
    grants = stored(app)
    found = await grants.session(token)
    assert found is not None
    id = found.session.id
    assert found == Grant(
        session=Session(
            subject=root.id, kind="session", id=id, permissions=frozenset({"users:write"}),
            role="admin", session_id=id, expires_at=START + 60_000, authenticated_at=START,
        )
    )  # fmt: skip
    # Each use puts off the end, but not beyond the absolute one, and not once it has come.
    for now, ends_at in ((50_000, 100_000), (59_999, 100_000), (60_000, 60_000), (70_000, 60_000)):
        clock.advance(START + now - clock.now())
        found = await grants.session(token)
        assert found is not None
        assert found.session.expires_at == START + ends_at
    await run(app, update(sessions).values(ended_at=START + 5))
    assert bars(await grants.session(token)).revoked_at == START + 5
    await run(app, update(users).values(email_verified_at=None))
    assert bars(await grants.session(token)).owner_state == "unverified"
    assert bars(await stored(app, must_verify=False).session(token)).owner_state == "active"
    await run(app, delete(users))
    gone = await grants.session(token)
    assert (bars(gone).owner_state, gone and gone.session.role) == ("gone", "user")


async def test_a_session_token_is_bare_or_signed_and_nothing_else(
    app: App, client: httpx2.AsyncClient
) -> None:
    ada = await person(app)
    asked = {"email": ada.email, "password": PASSWORD}
    answer = await client.post("/api/auth/sign-in/email", json=asked)
    bare, signed = answer.json()["token"], answer.headers["set-auth-token"]
    grants = stored(app)
    assert await grants.session(signed.encode()) == await grants.session(bare.encode())
    assert await grants.session(bare.encode()) is not None
    for wrong in (f"{bare}.x", f"{signed[:-1]}", f"{bare}x", "é", ""):
        assert await grants.session(wrong.encode()) is None


async def test_the_grant_of_a_service_token_is_of_the_settings_or_the_database(app: App) -> None:
    made, secret = await service_tokens.create(call_of(app), "ci")
    token = secret.reveal().encode()
    assert await stored(app).service(token) == Grant(
        session=Session(subject="service", kind="service", id=made.id, name="ci")
    )
    hashed = service_token_hash(token)
    assert await stored(app, hashes=[hashed]).service(token) == Grant(
        session=Session(subject="service", kind="service", id=hashed[:16])
    )
    await service_tokens.revoke(call_of(app), made.id)
    assert bars(await stored(app).service(token)).revoked_at == START
    assert await stored(app).service(token + b"x") is None


async def test_an_access_token_is_read_by_whoever_reads_those(app: App) -> None:
    async def read(token: bytes) -> Refusal:
        return Refusal(code="SESSION_ENDED", id=token.decode())

    assert await stored(app, access=read).access(b"t") == Refusal(code="SESSION_ENDED", id="t")


async def test_only_what_stands_under_an_old_pepper_is_written(auth: Auth, app: App) -> None:
    ada = await person(app)
    _, key = await key_of(auth, ada.id)
    written = []

    async def write(body: object) -> None:
        written.append(body)

    watched = SimpleNamespace(read=app.database.read, write=write)
    assert await stored(app, database=watched).key(key) is not None
    assert written == []


# --- made elsewhere -------------------------------------------------------------------------------


async def made_elsewhere(
    auth: Auth, app: App, scheme: Scheme, found_by: bytes, hashed: str | None = None
) -> str:
    """A key as an import leaves it."""
    ada = await person(app)
    id, _ = await key_of(auth, ada.id)
    row = {"digest": name_of(scheme, found_by), "pepper_id": scheme, "scheme": scheme}
    await run(app, update(api_key_secrets).values(**row, foreign_hash=hashed))
    return id


async def test_a_key_made_elsewhere_is_found_by_its_digest_and_then_by_ours(
    auth: Auth, app: App
) -> None:
    theirs = b"ak_live_elsewhere"
    id = await made_elsewhere(auth, app, "sha256", hashlib.sha256(theirs).digest())
    grants = stored(app)
    assert await grants.foreign(theirs, frozenset({"sha512"})) is None
    assert await grants.foreign(theirs + b"x", SCHEMES) is None
    for schemes in (frozenset[Scheme]({"sha256"}), NO_SCHEMES):
        found = await grants.foreign(theirs, schemes)
        assert found is not None
        assert found.id == id
    assert await digests(app) == [(app.ring.digest(theirs), app.ring.newest.id)]


async def test_where_a_slow_hash_decides_it_does_so_once(auth: Auth, app: App) -> None:
    checked = []

    async def check(hashed: str, part: bytes) -> bool:
        checked.append((hashed, part))
        return part == b"secretpepper"

    id = await made_elsewhere(auth, app, "keyshield", b"0123456789abcdef", "$argon2id$")
    grants = stored(app, slow=SlowHashes(check), pepper="pepper")
    assert await grants.foreign(b"ak_v1-0123456789abcdef-wrong", SCHEMES) is None
    for _ in range(2):
        found = await grants.foreign(b"ak_v1-0123456789abcdef-secret", SCHEMES)
        assert found is not None
        assert found.id == id
    assert checked == [("$argon2id$", b"wrongpepper"), ("$argon2id$", b"secretpepper")]


async def test_a_key_of_ours_is_none_that_was_made_elsewhere(auth: Auth, app: App) -> None:
    ada = await person(app)
    _, key = await key_of(auth, ada.id)
    assert await stored(app).key(key) is not None
    assert await stored(app).foreign(key, SCHEMES) is None
