"""The town that is attacked, on each database, and a shell for real servers."""

import httpx2
import pytest

from keybearer import Auth
from keybearer.operations.app import App
from tests.attacks.town import Town, build
from tests.cli.conftest import shell

__all__ = ["shell", "town"]


@pytest.fixture
async def town(auth: Auth, app: App, client: httpx2.AsyncClient) -> Town:
    return await build(auth, app, client)
