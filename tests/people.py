"""People, keys and a clock for the tests."""

import os
from typing import Any

import httpx2

from keybearer.domain.ids import RANDOM_BYTES, new_id
from keybearer.domain.model import ANYONE, Anonymous, RequestFacts, Session, User
from keybearer.operations import people
from keybearer.operations.app import App
from keybearer.operations.declaration import Call

SECRET = "tests-only-Zq8vT3mX1cR7nB5kW9yL2dF6"
PASSWORD = "plumqvortzixkedwy"
"""No words in it: the estimate of how soon it is guessed is ten times as quick."""
START = 1_795_000_000_000
"""2026-11-18T11:06:40Z: where the standing clock begins."""


def fresh_id(now: int) -> str:
    """A new id of that instant."""
    return new_id(now, os.urandom(RANDOM_BYTES))


class StandingClock:
    """Stands still until it is moved; milliseconds since the epoch, UTC."""

    def __init__(self, now: int = START) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def advance(self, ms: int) -> None:
        self._now += ms


def call_of(app: App, caller: Session | Anonymous | None = None, **facts: str | None) -> Call:
    """A call by somebody, or by the operator."""
    who = caller or Session(subject=ANYONE, kind="operator", id="test")
    told: dict[str, Any] = {"ip": "203.0.113.7", "user_agent": "tests", **facts}
    return Call(app=app, caller=who, facts=RequestFacts(id="req", **told), now=app.clock.now())


async def person(
    app: App,
    email: str = "ada@example.com",
    *,
    password: str | None = PASSWORD,
    verified: bool = True,
    admin: bool = False,
) -> User:
    """A user."""
    return await people.create(
        call_of(app), email=email, name="Ada", password=password, verified=verified, admin=admin
    )


FRESH = 1 << 60
"""A password given just now, whenever that is."""


def by(user: User, session_id: str = "session", authenticated_at: int = FRESH) -> Session:
    """That user, logged in."""
    return Session(
        subject=user.id, kind="session", id=session_id, session_id=session_id, role=user.role,
        permissions=None, authenticated_at=authenticated_at,
    )  # fmt: skip


async def log_in(
    client: httpx2.AsyncClient, email: str = "ada@example.com", password: str = PASSWORD
) -> dict[str, str]:
    """The headers of a program that logged in."""
    answer = await client.post("/api/auth/login", json={"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    return {"authorization": f"Bearer {answer.json()['token']}"}


async def make_key(
    client: httpx2.AsyncClient, headers: dict[str, str], **asked: object
) -> dict[str, Any]:
    """A new key's record, with the key."""
    answer = await client.post("/api/auth/api-key/create", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made
