"""What the database says of a credential, through changes of SECRET and of the settings."""

import contextlib
import os
from collections.abc import AsyncIterator

from keybearer import Auth, Session
from keybearer.adapters.sql.tables import api_key_secrets
from keybearer.domain.credentials import mint, service_token_hash
from keybearer.domain.model import Kind, Verdict
from keybearer.domain.ports import Row, Transaction
from keybearer.operations.app import App
from keybearer.operations.keys import CreateKey
from keybearer.operations.verify import VerifyBatch, VerifyKey
from tests.people import SECRET, StandingClock, person

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
