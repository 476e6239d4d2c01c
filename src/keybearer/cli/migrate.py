"""`keybearer migrate`: bring the database to this version."""

from keybearer.cli.output import answer, command, encode, say


@command(None, "migrate")
async def migrate(*, as_json: bool) -> None:
    """Brings the database to this version; does nothing when it is there."""
    from pathlib import Path

    from keybearer.adapters.sql.database import migrate as upgrade
    from keybearer.adapters.sql.database import open_database, versions
    from keybearer.settings import load

    settings = load(dotenv=Path(".env"))
    database, _ = open_database(settings.database_url)
    try:
        before, wanted = await versions(database)
        await upgrade(database)
        after, _ = await versions(database)
    finally:
        await database.close()
    if as_json:
        answer(encode({"from": before, "to": after, "changed": before != after}))
    elif before == after:
        say(f"the database has version {wanted} already")
    else:
        say(f"migrated from {before or 'an empty database'} to {after}")
