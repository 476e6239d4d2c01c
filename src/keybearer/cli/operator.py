"""A call by the operator, from a process beside the one that serves."""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from keybearer.operations.app import App
    from keybearer.operations.declaration import Call
    from keybearer.settings import Settings


@contextlib.asynccontextmanager
async def operator(*, accounts: bool = True) -> "AsyncIterator[Call]":
    """A call by the command: it may do what only the server may, and is audited as `operator`.

    This process has no cache; what it changes is told when the serving process goes by it.

    Args:
        accounts: False where owners are opaque ids of a host app.

    Raises:
        Misuse: a wrong setting, no database, or one of another version.
        Unavailable: the database cannot be reached.
    """
    from keybearer.auth import Auth
    from keybearer.domain.errors import Misuse
    from keybearer.domain.model import ANYONE, RequestFacts, Session
    from keybearer.operations.declaration import Call

    auth = Auth(serving=False, accounts=accounts)
    missing = missing_file(auth.settings)
    if missing is not None:
        # Opening it would make it: an empty database under a mistyped name, which nobody serves.
        raise Misuse(
            f"DATABASE_URL: {missing} is not there: `keybearer serve` or `keybearer migrate` "
            "makes it"
        )
    await auth.start()
    try:
        app = await _as_served(await auth.running())
        yield Call(
            app=app,
            caller=Session(subject=ANYONE, kind="operator", id="cli"),
            facts=RequestFacts(id=os.urandom(8).hex()),
            now=app.clock.now(),
        )
    finally:
        await auth.stop()


def missing_file(settings: "Settings") -> Path | None:
    """The SQLite file, while there is none."""
    file = None if settings.sqlite_path is None else Path(settings.sqlite_path).resolve()
    return None if file is None or file.exists() else file


def has_base_url() -> bool:
    """Whether the environment or `.env` sets BASE_URL; else the serving process knows it."""
    from keybearer.settings import variables

    return "KEYBEARER_BASE_URL" in variables(dotenv=Path(".env"))


async def _as_served(app: "App") -> "App":
    """The parts with the address of the serving process: links in mails must lead there."""
    from msgspec.structs import replace as with_

    from keybearer.adapters.sql.coherence import read_address

    address = None if has_base_url() else await read_address(app.database)
    if address is None:
        return app
    return replace(app, settings=with_(app.settings, base_url=address))


def check_owner(owner: str | None, owner_id: str | None) -> None:
    """Raises UsageError when an owner is named in both ways."""
    if owner is not None and owner_id is not None:
        raise click.UsageError("give --owner or --owner-id, not both")


async def owner_of(call: "Call", owner: str | None, owner_id: str | None) -> str | None:
    """The owner's id, by address or as it was given; None when neither was.

    Raises:
        Failure: USER_NOT_FOUND.
    """
    from keybearer.operations import people

    if owner is None:
        return owner_id
    return (await people.find(call, owner)).id
