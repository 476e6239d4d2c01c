"""Revocation, expiry and staleness, attacked (rows A077 to A094).

One process serves, and no cache is shared: where a row speaks of nodes (A081, A085), the other one
is the command, a process beside the server.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pysqlite3.dbapi2 as sqlite
import pytest

from keybearer import Auth, Session
from keybearer.adapters.sql import audit
from keybearer.domain.errors import Unavailable
from keybearer.operations import people
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.keys import CreateKey
from keybearer.verification.coherence import LEASE_MS
from tests.attacks.town import API, Town, is_problem
from tests.people import PASSWORD, SECRET, StandingClock, call_of, log_in, make_key
from tests.servers import PostgresServer

TRIALS = 300


async def test_a077_no_request_that_starts_after_the_answer_is_accepted(town: Town) -> None:
    for _ in range(TRIALS // 10):
        made = await make_key(town.client, town.t1)
        assert await town.works(made["key"])
        ended = await town.post("/api-key/delete", town.t1, keyId=made["id"])
        assert ended.status_code == 200
        verdicts = await asyncio.gather(*(town.works(made["key"]) for _ in range(10)))
        assert not any(verdicts)


async def test_a078_revoking_under_full_rate_leaves_no_late_success(town: Town) -> None:
    answered = asyncio.Event()
    late: list[bool] = []

    async def hammer() -> None:
        while not answered.is_set():
            await town.works(town.k1["key"])
            await asyncio.sleep(0)
        late.extend([await town.works(town.k1["key"]) for _ in range(20)])

    hammers = [asyncio.create_task(hammer()) for _ in range(8)]
    await asyncio.sleep(0.05)
    await town.post("/api-key/delete", town.t1, keyId=town.k1["id"])
    answered.set()
    await asyncio.gather(*hammers)
    assert len(late) == 160
    assert not any(late)


async def test_a079_counting_never_brings_a_key_back(town: Town) -> None:
    async def use() -> None:
        for _ in range(30):
            await town.works(town.k1["key"])
            await town.app.verifier.usage.flush(town.app.clock.now())

    async def change() -> None:
        for enabled in (False, True, False):
            await town.post("/api-key/update", town.t1, keyId=town.k1["id"], enabled=enabled)
        await town.post("/api-key/delete", town.t1, keyId=town.k1["id"])

    await asyncio.gather(use(), use(), change())
    await town.app.verifier.usage.flush(town.app.clock.now())
    shown = (await town.get("/api-key/get", town.t1, id=town.k1["id"])).json()
    assert (shown["status"], shown["enabled"]) == ("revoked", False)
    assert not await town.works(town.k1["key"])


class Held:
    """Holds back the first call of a method between its work and its answer."""

    def __init__(self, method: Callable[..., Awaitable[Any]], *, before: bool) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self._method, self._before = method, before

    async def __call__(self, *args: Any) -> Any:
        first = not self.reached.is_set()
        if first and self._before:
            await self._wait()
        answer = await self._method(*args)
        if first and not self._before:
            await self._wait()
        return answer

    async def _wait(self) -> None:
        self.reached.set()
        await self.go.wait()


async def test_a080_what_was_read_before_a_revocation_is_not_kept_after_it(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(town.app.database.read, before=False)
    monkeypatch.setattr(town.app.database, "read", held)
    verifying = asyncio.create_task(town.works(town.k1["key"]))
    await held.reached.wait()
    assert (await town.post("/api-key/delete", town.t1, keyId=town.k1["id"])).status_code == 200
    # Whoever comes now must not join the read under way, which would wait for ever.
    assert not await asyncio.wait_for(town.works(town.k1["key"]), 60)
    held.go.set()
    await verifying  # it had begun before, so either verdict will do
    assert not await town.works(town.k1["key"])
    await town.app.verifier.usage.flush(town.app.clock.now())
    assert (await town.get("/api-key/get", town.t1, id=town.k1["id"])).json()["status"] == "revoked"


async def test_a080_a_revocation_before_the_quota_is_taken_leaves_the_quota(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await town.auth.api.create_api_key(CreateKey(user_id=town.u1, remaining=5))
    held = Held(town.app.database.write, before=True)
    monkeypatch.setattr(town.app.database, "write", held)
    verifying = asyncio.create_task(town.works(made.key or ""))
    await held.reached.wait()
    assert (await town.post("/api-key/delete", town.t1, keyId=made.id)).status_code == 200
    held.go.set()
    assert not await verifying
    shown = (await town.get("/api-key/get", town.t1, id=made.id)).json()
    assert (shown["status"], shown["remaining"]) == ("revoked", 5)


async def test_a081_a_revocation_that_is_not_spread_is_no_success(
    town: Town, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_tags: object) -> NoReturn:
        raise Unavailable("lost")

    assert await town.works(town.k1["key"])  # and so it is cached
    with monkeypatch.context() as fault:
        fault.setattr(town.app.spread, "settle", lost)
        answer = await town.post("/api-key/delete", town.t1, keyId=town.k1["id"])
    assert is_problem(answer, 503, "REVOCATION_PENDING")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await town.get("/api-key/get", town.t1, id=town.k1["id"])).json()["status"] == "revoked"
    again = await town.post("/api-key/delete", town.t1, keyId=town.k1["id"])
    assert again.status_code == 200
    assert not await town.works(town.k1["key"])
    assert len(await town.events("key.revoked")) == 1


async def test_a081_without_a_word_of_the_server_its_next_lease_ends_the_key(
    town: Town, ready_url: str, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost() -> NoReturn:
        raise Unavailable("lost")

    assert await town.works(town.k1["key"])
    visitor = Auth(ready_url, secret=SECRET, serving=False, clock=clock)
    async with visitor.lifespan():
        spread = (await visitor.running()).spread
        monkeypatch.setattr(spread, "members", lost)
        with pytest.raises(Unavailable) as told:
            await visitor.api.revoke_api_key(RevokeKey(key_id=town.k1["id"]))
        assert told.value.code == "REVOCATION_PENDING"
    clock.advance(LEASE_MS)
    assert not await town.works(town.k1["key"])


@pytest.mark.parametrize("skew", [-120_000, 120_000])
async def test_a085_keys_end_by_the_clock_of_the_server_whoever_made_them(
    town: Town, ready_url: str, clock: StandingClock, skew: int
) -> None:
    theirs = StandingClock(clock.now() + skew)
    visitor = Auth(ready_url, secret=SECRET, serving=False, clock=theirs)
    async with visitor.lifespan():
        made = await visitor.api.create_api_key(CreateKey(user_id=town.u1, expires_in=300))
        ended = await visitor.api.create_api_key(CreateKey(user_id=town.u1, expires_in=1))
    assert await town.works(ended.key or "") is (skew > 0)  # off by the skew, and no more
    clock.advance(300_000 + skew - 1)
    assert await town.works(made.key or "")
    assert not await town.works(ended.key or "")
    clock.advance(1)
    assert not await town.works(made.key or "")


async def test_a077_the_command_beside_the_server_is_as_good(
    town: Town, ready_url: str, clock: StandingClock
) -> None:
    visitor = Auth(ready_url, secret=SECRET, serving=False, clock=clock)
    assert await town.works(town.k1["key"])

    async def pass_time() -> None:
        while True:
            await asyncio.sleep(0.01)
            clock.advance(100)

    ticking = asyncio.create_task(pass_time())
    async with visitor.lifespan():
        begun = clock.now()
        receipt = await visitor.api.revoke_api_key(RevokeKey(key_id=town.k1["id"]))
        took = clock.now() - begun
    ticking.cancel()
    assert receipt.nodes == 1
    # The lease of the server counts from the change; what was waited, from its commit on.
    assert took >= 2000
    assert 0 < receipt.waited_ms <= took
    assert not await town.works(town.k1["key"])


async def test_a086_an_edit_brings_nothing_back_and_passes_no_maximum(
    town: Town, clock: StandingClock
) -> None:
    too_long = {"expiresIn": 366 * 86_400}
    answer = await town.post("/api-key/update", town.t1, keyId=town.k1["id"], **too_long)
    assert is_problem(answer, 400, "EXPIRES_IN_IS_TOO_LARGE")
    await town.post("/api-key/update", town.t1, keyId=town.k1["id"], expiresIn=60)
    clock.advance(60_000)
    for change in ({"expiresIn": None}, {"expiresIn": 3600}, {"enabled": True}):
        answer = await town.post("/api-key/update", town.t1, keyId=town.k1["id"], **change)
        assert is_problem(answer, 400, "KEY_NOT_UPDATABLE")
    await town.post("/api-key/delete", town.t2, keyId=town.k2["id"])
    answer = await town.post("/api-key/update", town.t2, keyId=town.k2["id"], enabled=True)
    assert is_problem(answer, 400, "KEY_NOT_UPDATABLE")


async def test_a088_a_replaced_secret_ends_with_its_grace_and_cannot_rotate(
    town: Town, clock: StandingClock
) -> None:
    old = town.key1
    answer = await town.post("/api-key/rotate", town.t1, keyId=town.k1["id"], gracePeriod=60)
    new = answer.json()["key"]
    again = await town.post("/api-key/rotate", old, gracePeriod=3600)
    assert is_problem(again, 400, "KEY_NOT_ROTATABLE")
    clock.advance(59_999)
    assert await town.works(town.k1["key"])
    clock.advance(1)
    assert not await town.works(town.k1["key"])
    assert await town.works(new)
    assert len(await town.events("key.rotated")) == 1


async def test_a088_what_a_rotation_ends_is_refused_when_it_has_answered(town: Town) -> None:
    for deed, ended in (("finish", 0), ("cancel", 1)):
        made = await make_key(town.client, town.t1)
        asked = {"keyId": made["id"], "gracePeriod": None}
        rotated = (await town.post("/api-key/rotate", town.t1, **asked)).json()
        secrets = [made["key"], rotated["key"]]
        for secret in secrets:
            assert await town.works(secret)  # and so it is cached
        answer = await town.post(f"/api-key/rotation/{deed}", town.t1, keyId=made["id"])
        assert answer.status_code == 200, answer.text
        assert not await town.works(secrets[ended])
        assert await town.works(secrets[1 - ended])


async def test_a088_a_rotation_that_is_sent_again_ends_no_secret(town: Town) -> None:
    asked = {"keyId": town.k1["id"], "replaces": town.k1["start"], "gracePeriod": 60}
    new = (await town.post("/api-key/rotate", town.t1, **asked)).json()["key"]
    again = await town.post("/api-key/rotate", town.t1, **asked)
    assert is_problem(again, 409, "KEY_ALREADY_ROTATED")
    assert await town.works(town.k1["key"])
    assert await town.works(new)
    assert len(await town.events("key.rotated")) == 1


async def test_a090_logging_out_leaves_keys_alone(town: Town) -> None:
    assert (await town.post("/logout", town.t1)).status_code == 200
    assert is_problem(await town.get("/api-key/list", town.t1), 401, "SESSION_ENDED")
    assert await town.works(town.k1["key"])


async def test_a091_a_disabled_user_has_nothing_left(town: Town) -> None:
    keys = [await make_key(town.client, town.t1) for _ in range(20)]
    logins = [await log_in(town.client, "u1@example.com") for _ in range(3)]
    for made in keys:
        assert await town.works(made["key"])
    await people.disable(call_of(town.app), "u1@example.com")
    for made in keys:
        assert not await town.works(made["key"])
    for headers in logins:
        assert is_problem(await town.get("/api-key/list", headers), 401)
    answer = await town.post("/login", email="u1@example.com", password=PASSWORD)
    assert is_problem(answer, 403, "USER_DISABLED")
    assert await town.works(town.k2["key"])


async def test_a092_an_ended_session_takes_its_access_tokens_along(town: Town) -> None:
    other = await log_in(town.client, "u1@example.com")
    assert (await town.get("/list-sessions", other)).status_code == 200
    await town.post("/revoke-other-sessions", town.t1)
    assert is_problem(await town.get("/list-sessions", other), 401, "SESSION_ENDED")
    assert (await town.get("/list-sessions", town.t1)).status_code == 200


@pytest.fixture
def copy_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes a backup of a database that nobody serves, and gives its URL."""
    made: list[str] = []

    def copied(url: str) -> str:
        if url.startswith("sqlite"):
            backup = tmp_path / "backup.db"
            with contextlib.closing(sqlite.connect(url.removeprefix("sqlite:///"))) as connection:
                connection.execute("VACUUM INTO ?", (str(backup),))
            return f"sqlite:///{backup}"
        server: PostgresServer = request.getfixturevalue("postgres_server")
        made.append(server.create(template=url))
        return made[-1]

    yield copied
    for url in made:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.drop(url)


async def opens(url: str, *keys: str, secret: str = SECRET) -> list[bool]:
    """Which keys a server on this database accepts."""
    auth = Auth(url, secret=secret, accounts=False)
    async with auth.lifespan():
        return [await auth.api.get_session({"x-api-key": key}) is not None for key in keys]


async def test_a093_after_a_restore_the_operator_ends_again_what_the_trail_names(
    ready_url: str, copy_of: Callable[[str], str]
) -> None:
    # docs/server.md, Back up: a backup cannot know what was revoked after it.
    before = Auth(ready_url, secret=SECRET, accounts=False)
    async with before.lifespan():
        ended, kept = [
            (await before.api.create_api_key(CreateKey(user_id="ann"))).key or "" for _ in range(2)
        ]
    restored = copy_of(ready_url)
    after = Auth(ready_url, secret=SECRET, accounts=False)
    async with after.lifespan():
        session = await after.api.get_session({"x-api-key": ended})
        assert session is not None
        await after.api.revoke_api_key(RevokeKey(key_id=session.id))
        noted = await (await after.running()).database.read(audit.heads)
    assert await opens(ready_url, ended, kept) == [False, True]
    assert await opens(restored, ended, kept) == [True, True]

    damaged = Auth(ready_url, secret=SECRET, accounts=False, serving=False)
    async with damaged.lifespan():
        trail = (await damaged.running()).database
        newest = await trail.read(lambda tx: audit.newest(tx, limit=100))
        revoked = [event.target_id for event in newest if event.event == "key.revoked"]
    operator = Auth(restored, secret=SECRET, accounts=False, serving=False)
    async with operator.lifespan():
        # The trail holds, but heads that were noted elsewhere tell that its end is missing.
        database = (await operator.running()).database
        assert await database.read(audit.heads) != noted
        for id in revoked:
            receipt = await operator.api.revoke_api_key(RevokeKey(key_id=id or ""))
            assert receipt.nodes == 0
    assert len(revoked) == 1
    assert await opens(restored, ended, kept) == [False, True]


async def test_a093_without_a_trail_a_new_secret_ends_everything(
    ready_url: str, copy_of: Callable[[str], str]
) -> None:
    before = Auth(ready_url, secret=SECRET, accounts=False)
    async with before.lifespan():
        key = (await before.api.create_api_key(CreateKey(user_id="ann"))).key or ""
        await (await before.running()).signing.signer()
    restored, new = copy_of(ready_url), "restored-Yh4kQ8sV2nL6wZ9bT3xG5mR7"
    # Once with both, so that the signing keys move to the new one; no key is presented meanwhile.
    assert await opens(restored, secret=f"{new},{SECRET}") == []
    assert await opens(restored, key, secret=new) == [False]
    anew = Auth(restored, secret=new, accounts=False)
    async with anew.lifespan():
        made = (await anew.api.create_api_key(CreateKey(user_id="ann"))).key or ""
    assert await opens(restored, made, key, secret=new) == [True, False]


async def test_a094_looking_and_logging_in_make_no_key(town: Town) -> None:
    await town.post("/api-key/delete", town.t1, keyId=town.k1["id"])
    await log_in(town.client, "u1@example.com")
    await town.get("/api-key/list", town.t1)
    await town.get("/get-session", town.t1)
    listed = (await town.get("/api-key/list", town.t1, status="active")).json()
    assert listed["total"] == 0
    assert not await town.works(town.k1["key"])


async def test_expiry_is_exact(town: Town, clock: StandingClock) -> None:
    made = await make_key(town.client, town.t1, expiresIn=10)
    clock.advance(9_999)
    verdict = await town.auth.api.authenticate({"x-api-key": made["key"]})
    assert isinstance(verdict, Session)
    clock.advance(1)
    assert not await town.works(made["key"])


async def test_f18_a_clock_that_is_set_back_revives_nothing(town: Town) -> None:
    # The clock of the product does not step (adapters/clock.py); what is over is over by it.
    from keybearer.adapters.clock import SystemClock

    clock = SystemClock()
    readings = [clock.now() for _ in range(1000)]
    assert readings == sorted(readings)


async def test_delete_takes_the_id_in_body_or_query(town: Town) -> None:
    answer = await town.client.request(
        "DELETE", f"{API}/api-key/revoke", json={"keyId": town.k1["id"]}, headers=town.t1
    )
    assert answer.json()["success"] is True
    by_query = await town.client.delete(
        f"{API}/api-key/revoke", params={"keyId": town.k2["id"]}, headers=town.t2
    )
    assert by_query.json()["nodes"] == 1
