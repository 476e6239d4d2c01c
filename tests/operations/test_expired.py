"""Expired keys are kept until their retention is over, unless somebody deletes them before."""

import httpx2
import pytest
from sqlalchemy import select

from keybearer import Auth
from keybearer.adapters.sql.tables import audit
from keybearer.operations.app import App
from tests.people import StandingClock, log_in, make_key, person

DELETE = "/api/auth/api-key/delete-all-expired-api-keys"


async def test_expired_keys_are_deleted_and_no_others(
    auth: Auth, app: App, client: httpx2.AsyncClient, clock: StandingClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("keybearer.operations.keyends._BATCH", 2)
    await person(app)
    headers = await log_in(client)
    for _ in range(3):
        await make_key(client, headers, expiresIn=60)
    lives = await make_key(client, headers, expiresIn=172800)
    revoked = await make_key(client, headers, expiresIn=60)
    await client.delete(f"/api/auth/api-key/revoke?keyId={revoked['id']}", headers=headers)
    clock.advance(60_000)
    _, token = await auth.api.service_tokens.create("jobs")
    bearer = {"authorization": f"Bearer {token.reveal()}"}
    answer = await client.post(DELETE, headers=bearer)
    assert answer.json() == {"success": True, "error": None, "deleted": 3}
    headers = await log_in(client)
    page = (await client.get("/api/auth/api-key/list", headers=headers)).json()
    assert {key["id"] for key in page["apiKeys"]} == {lives["id"], revoked["id"]}
    assert (await client.post(DELETE, headers=bearer)).json()["deleted"] == 0
    # Each batch is in the trail with itself: a crash between two leaves none out.
    asked = select(audit.c.details).where(audit.c.event == "keys.deleted")
    told = await app.database.read(lambda tx: tx.all(asked))
    assert sorted(row.details for row in told) == ['{"expired":1}', '{"expired":2}']


async def test_only_a_service_token_deletes_them(app: App, client: httpx2.AsyncClient) -> None:
    await person(app)
    answer = await client.post(DELETE, headers=await log_in(client))
    assert (answer.status_code, answer.json()["code"]) == (403, "SERVICE_TOKEN_REQUIRED")
