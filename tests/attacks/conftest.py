"""The town that is attacked, on each database."""

import httpx2
import pytest

from keybearer import Auth
from keybearer.operations.app import App
from tests.attacks.town import Town, build


@pytest.fixture
async def town(auth: Auth, app: App, client: httpx2.AsyncClient) -> Town:
    return await build(auth, app, client)
