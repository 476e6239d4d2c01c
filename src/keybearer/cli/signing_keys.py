"""`keybearer signing-keys`: the keys that sign access tokens."""

from functools import partial

import click

from keybearer.cli.operator import operator
from keybearer.cli.output import answer, command, encode, say, table


@click.group("signing-keys")
def signing_keys() -> None:
    """The keys that sign access tokens: list, rotate."""


@command(signing_keys, "list")
async def listing(*, as_json: bool) -> None:
    """Lists the signing keys, oldest first; the private halves stay sealed."""
    from keybearer.adapters.sql import signing as sql
    from keybearer.operations.wire import instant

    async with operator() as call:
        found = await call.app.database.read(sql.every)
    keys = [
        {
            "kid": key.kid,
            "createdAt": instant(key.created_at),
            "activatesAt": instant(key.activates_at),
            "retiresAt": instant(key.retires_at),
        }
        for key in found
    ]
    if as_json:
        answer(encode({"signingKeys": keys}))
        return
    rows = [tuple(key.values()) for key in keys]
    answer(table(("KID", "CREATED", "SIGNS FROM", "ENDS"), rows))


@command(signing_keys, "rotate")
async def rotate(*, as_json: bool) -> None:
    """Makes the next signing key; it signs as soon as everyone had time to learn of it."""
    from keybearer.adapters.sql import signing as sql
    from keybearer.operations.upkeep import note_rotation
    from keybearer.operations.wire import instant

    async with operator() as call:
        kid = await call.app.signing.rotate(partial(note_rotation, call))
        found = await call.app.database.read(sql.every)
    made = next(key for key in found if key.kid == kid)
    if as_json:
        answer(encode({"kid": kid, "activatesAt": instant(made.activates_at)}))
    else:
        say(f"made {kid}; it signs from {instant(made.activates_at)}")
