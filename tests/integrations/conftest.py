import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
from starlette.types import ASGIApp

from keybearer import Auth
from keybearer.operations.keys import CreateKey
from tests.people import SECRET, StandingClock

MakeKey = Callable[..., Awaitable[str]]
Calling = Callable[[ASGIApp], httpx2.AsyncClient]


def built(template: Path, folder: Path, clock: StandingClock, *, accounts: bool) -> Auth:
    path = folder / "keybearer.db"
    folder.mkdir(exist_ok=True)
    shutil.copy(template, path)
    return Auth(
        f"sqlite:///{path}",
        secret=SECRET,
        permissions="files:read,files:write",
        token_management=True,
        accounts=accounts,
        clock=clock,
    )


@pytest.fixture
async def auth(sqlite_template: Path, tmp_path: Path, clock: StandingClock) -> AsyncIterator[Auth]:
    """Owners are opaque ids of the host app."""
    async with (auth := built(sqlite_template, tmp_path, clock, accounts=False)).lifespan():
        yield auth


@pytest.fixture
async def house(sqlite_template: Path, tmp_path: Path, clock: StandingClock) -> AsyncIterator[Auth]:
    """Keybearer keeps the users."""
    async with (auth := built(sqlite_template, tmp_path, clock, accounts=True)).lifespan():
        yield auth


@pytest.fixture
def make_key(auth: Auth) -> MakeKey:
    async def make(*permissions: str, **asked: object) -> str:
        actions = [permission.partition(":")[2] for permission in permissions]
        wanted = {"files": actions} if actions else None
        operations = auth.api.create_api_key
        made = await operations(CreateKey(name="x", permissions=wanted, **asked), owner="user-1")  # type: ignore[arg-type] # whatever a test asks for
        assert made.key is not None
        return made.key

    return make


@pytest.fixture
async def calling() -> AsyncIterator[Calling]:
    """HTTP to an app in this process."""
    opened: list[httpx2.AsyncClient] = []

    def open_client(app: ASGIApp) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 50000))
        opened.append(httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000"))
        return opened[-1]

    yield open_client
    for client in opened:
        await client.aclose()
