"""Databases that the real systems made, each in the kind that we use ourselves in that test."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from keybearer.adapters.sql.origins import open_origin
from keybearer.operations import betterauth
from keybearer.operations.app import App
from keybearer.operations.moving import Report
from tests.people import call_of
from tests.servers import PostgresServer

HERE = Path(__file__).parent


class Source(msgspec.Struct, frozen=True):
    """A database to import, and what was given out of it."""

    url: str
    given: Any

    def key(self, name: str) -> str:
        return str(self.given["keys"][name]["key"])

    def id(self, name: str) -> str:
        return str(self.given["keys"][name]["id"])

    def person(self, name: str) -> Any:
        return self.given["people"][name]

    def run(self, statement: str) -> None:
        """Changes it."""
        if self.url.startswith("sqlite"):
            with sqlite3.connect(self.url.removeprefix("sqlite:///")) as connection:
                connection.executescript(statement)
            connection.close()
        else:
            # Also from within a test, whose event loop runs.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(asyncio.run, _execute(self.url, statement)).result()


async def _execute(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


@pytest.fixture
def better_auth(ready_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Source]:
    """SQLite where we are on SQLite, PostgreSQL where we are on that."""
    if ready_url.startswith("sqlite"):
        path = tmp_path / "better_auth.db"
        source = Source(f"sqlite:///{path}", json.loads((HERE / "better_auth.json").read_text()))
        source.run((HERE / "better_auth.sql").read_text())
        yield source
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create()
    given = json.loads((HERE / "better_auth_postgres.json").read_text())
    source = Source(url, given)
    source.run((HERE / "better_auth_postgres.sql").read_text())
    yield source
    server.drop(url)


async def move(app: App, source: Source, **choices: Any) -> Report:
    async with open_origin(source.url) as origin:
        return await betterauth.move(call_of(app), origin, betterauth.Choices(**choices))
