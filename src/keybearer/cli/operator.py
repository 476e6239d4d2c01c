"""A call by the operator, from a process beside the one that serves."""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from keybearer.operations.declaration import Call


@contextlib.asynccontextmanager
async def operator(*, accounts: bool = True) -> "AsyncIterator[Call]":
    """A call by the command: it may do what only the server may, and is audited as `operator`.

    This process has no cache; what it changes is told when the serving process goes by it.

    Args:
        accounts: False where owners are opaque ids of a host app.

    Raises:
        Misuse: a wrong setting, or a database of another version.
        Unavailable: the database cannot be reached.
    """
    from keybearer.auth import Auth
    from keybearer.domain.model import ANYONE, RequestFacts, Session
    from keybearer.operations.declaration import Call

    auth = Auth(serving=False, accounts=accounts)
    await auth.start()
    try:
        app = await auth.running()
        yield Call(
            app=app,
            caller=Session(subject=ANYONE, kind="operator", id="cli"),
            facts=RequestFacts(id=os.urandom(8).hex()),
            now=app.clock.now(),
        )
    finally:
        await auth.stop()


async def owner_of(call: "Call", owner: str | None, owner_id: str | None) -> str | None:
    """The owner's id, by address or as it was given; None when neither was.

    Raises:
        UsageError: both were given.
        Failure: USER_NOT_FOUND.
    """
    from keybearer.operations import people

    if owner is not None and owner_id is not None:
        raise click.UsageError("give --owner or --owner-id, not both")
    if owner is None:
        return owner_id
    return (await people.find(call, owner)).id
