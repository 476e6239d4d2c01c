"""Two users with a key each: who attacks whom, in the words of the rows."""

from dataclasses import dataclass
from typing import Any

import httpx2
from sqlalchemy import Table, func, select

from keybearer import Auth
from keybearer.adapters.sql import audit, tables
from keybearer.domain.ports import Transaction
from keybearer.operations.app import App
from tests.people import log_in, make_key, person

API = "/api/auth"


@dataclass(frozen=True, slots=True)
class Town:
    """U1 and U2 with access tokens T1 and T2, and keys K1 and K2."""

    auth: Auth
    app: App
    client: httpx2.AsyncClient
    u1: str
    u2: str
    t1: dict[str, str]
    t2: dict[str, str]
    k1: dict[str, Any]
    k2: dict[str, Any]

    @property
    def key1(self) -> dict[str, str]:
        return {"x-api-key": self.k1["key"]}

    async def post(
        self, path: str, headers: dict[str, str] | None = None, **json: object
    ) -> httpx2.Response:
        return await self.client.post(API + path, json=json, headers=headers)

    async def get(
        self, path: str, headers: dict[str, str] | None = None, **query: Any
    ) -> httpx2.Response:
        return await self.client.get(API + path, params=query or None, headers=headers)

    async def create(self, **json: object) -> httpx2.Response:
        return await self.post("/api-key/create", self.t1, **json)

    async def count(self, headers: dict[str, str] | None = None) -> int:
        """How many keys U1 has."""
        answer = await self.get("/api-key/list", headers or self.t1)
        total: int = answer.json()["total"]
        return total

    async def works(self, key: str) -> bool:
        """Whether a guarded endpoint accepts the key."""
        return await self.auth.api.get_session({"x-api-key": key}, ip="203.0.113.7") is not None

    async def events(self, event: str) -> list[audit.Event]:
        """Everyone's events of one name."""
        found = await self.app.database.read(lambda tx: audit.newest(tx, limit=1000))
        return [each for each in found if each.event == event]

    async def rows(self) -> dict[str, int]:
        """How many rows the tables have that a stranger must not change."""
        kept: list[Table] = [
            tables.users, tables.sessions, tables.refresh_tokens, tables.api_keys,
            tables.api_key_secrets, tables.service_tokens, tables.signing_keys,
            tables.one_time_tokens,
        ]  # fmt: skip

        async def body(tx: Transaction) -> dict[str, int]:
            counted = {}
            for table in kept:
                row = await tx.one(select(func.count().label("n")).select_from(table))
                assert row is not None
                counted[table.name] = row.n
            return counted

        return await self.app.database.read(body)


async def build(auth: Auth, app: App, client: httpx2.AsyncClient) -> Town:
    """The town."""
    u1, u2 = await person(app, "u1@example.com"), await person(app, "u2@example.com")
    t1, t2 = await log_in(client, "u1@example.com"), await log_in(client, "u2@example.com")
    return Town(
        auth=auth,
        app=app,
        client=client,
        u1=u1.id,
        u2=u2.id,
        t1=t1,
        t2=t2,
        k1=await make_key(client, t1, name="k1"),
        k2=await make_key(client, t2, name="k2"),
    )


def is_problem(answer: httpx2.Response, status: int, code: str | None = None) -> bool:
    """Whether an answer is a whole problem of this status that tells nothing of our inside."""
    body = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert set(body) >= {"type", "title", "detail", "instance", "code", "message", "requestId"}
    lowered = answer.text.lower()
    for leak in ("traceback", "sqlalchemy", "select ", "/src/", ".py", "asyncpg", "sqlite3"):
        assert leak not in lowered
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer realm=")
    return code is None or body["code"] == code
