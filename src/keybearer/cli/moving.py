"""`keybearer import` and `export`: users and keys move in, and out."""

from typing import IO, TYPE_CHECKING

import click

from keybearer.cli.operator import operator
from keybearer.cli.output import answer, command, encode, say, table, visible

if TYPE_CHECKING:
    from keybearer.operations.declaration import Call
    from keybearer.operations.moving import Report

_SHOWN = 20
_STRICT = click.option("--strict", is_flag=True, help="Exit code 1 where anything was skipped.")


@click.group("import")
def move_in() -> None:
    """Users and keys of another system move in; they go on to work as they are.

    --dry-run says what would happen. What is here already is left as it is, so that an import can
    be run again.
    """


_ENDINGS = click.option(
    "--endings", is_flag=True,
    help="What was ended there since the last run is ended here: keys, and users who are disabled.",
)  # fmt: skip
_REPLACE = click.option(
    "--replace-unverified", is_flag=True,
    help="An account without keys whose address nobody has proven makes room: it is deleted.",
)  # fmt: skip


@command(move_in, "better-auth")
@click.argument("url")
@click.option("--sessions", is_flag=True, help="Logins go on, by their bearer tokens.")
@click.option("--keys-only", is_flag=True,
              help="Owners are ids of an app that keeps its users itself.")  # fmt: skip
@click.option("--plain-keys", is_flag=True, help="The keys were stored with disableKeyHashing.")
@click.option(
    "--organization-config",
    "organization_configs",
    multiple=True,
    metavar="ID",
    help="A configuration whose keys belong to organizations; several times, or none.",
)
@_ENDINGS
@_REPLACE
@click.option("--table", "tables", multiple=True, metavar="apikey=NAME",
              help="What a table is called there; several times.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Write nothing, and say what would happen.")
@_STRICT
async def better_auth(
    *,
    url: str,
    sessions: bool,
    keys_only: bool,
    plain_keys: bool,
    organization_configs: tuple[str, ...],
    endings: bool,
    replace_unverified: bool,
    tables: tuple[str, ...],
    dry_run: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Imports a Better Auth database: sqlite:///FILE or postgresql://…

    Users keep their ids and passwords, keys work as they are, with their limits and permissions.
    """
    from keybearer.adapters.sql.origins import open_origin
    from keybearer.operations import betterauth

    choices = betterauth.Choices(
        sessions=sessions,
        keys_only=keys_only,
        plain_keys=plain_keys,
        organization_configs=frozenset(organization_configs),
        dry_run=dry_run,
        endings=endings,
        replace_unverified=replace_unverified,
        names=_names(tables),
    )
    async with operator(accounts=not keys_only) as call, open_origin(url) as origin:
        report = await betterauth.move(call, origin, choices)
    tell(report, strict=strict, as_json=as_json)


_OWNER = click.option("--owner", metavar="EMAIL|ID", help="Whose keys those are that name nobody.")
_CONFIG = click.option(
    "--config", default="default", metavar="ID", show_default=True,
    help="The configuration that the keys will be of: api_key(config_id=…).",
)  # fmt: skip
_KEYS_ONLY = click.option(
    "--keys-only", is_flag=True, help="Owners are ids of an app that keeps its users itself."
)
_TABLES = click.option(
    "--table", "tables", multiple=True, metavar="USUAL=NAME",
    help="What a table is called there; several times.",
)  # fmt: skip
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Write nothing, and say what would happen.")


@command(move_in, "django")
@click.argument("url")
@click.option("--verified", is_flag=True, help="The addresses are known to be their owners'.")
@_OWNER
@_CONFIG
@_KEYS_ONLY
@_ENDINGS
@_REPLACE
@_TABLES
@_DRY_RUN
@_STRICT
async def django(
    *,
    url: str,
    verified: bool,
    owner: str | None,
    config: str,
    keys_only: bool,
    endings: bool,
    replace_unverified: bool,
    tables: tuple[str, ...],
    dry_run: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Imports a Django database: users, and keys of knox and djangorestframework-api-key."""
    from keybearer.adapters.sql.origins import open_origin
    from keybearer.operations import fromdjango
    from keybearer.operations.arriving import Choices

    async with operator(accounts=not keys_only) as call, open_origin(url) as origin:
        choices = Choices(
            owner=await _owner_id(call, owner, keys_only=keys_only), verified=verified,
            config=config, keys_only=keys_only, dry_run=dry_run, names=_names(tables),
            endings=endings, replace_unverified=replace_unverified,
        )  # fmt: skip
        report = await fromdjango.move(call, origin, choices)
    tell(report, strict=strict, as_json=as_json)


@command(move_in, "fastapi-users")
@click.argument("url")
@_ENDINGS
@_REPLACE
@_TABLES
@_DRY_RUN
@_STRICT
async def fastapi_users(
    *,
    url: str,
    endings: bool,
    replace_unverified: bool,
    tables: tuple[str, ...],
    dry_run: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Imports the users of fastapi-users: sqlite:///FILE or postgresql://…"""
    from keybearer.adapters.sql.origins import open_origin
    from keybearer.operations import fromothers
    from keybearer.operations.arriving import Choices

    async with operator() as call, open_origin(url) as origin:
        choices = Choices(
            dry_run=dry_run, endings=endings, replace_unverified=replace_unverified,
            names=_names(tables),
        )  # fmt: skip
        report = await fromothers.move_fastapi_users(call, origin, choices)
    tell(report, strict=strict, as_json=as_json)


@command(move_in, "keyshield")
@click.argument("url")
@_OWNER
@_CONFIG
@_KEYS_ONLY
@_ENDINGS
@_TABLES
@_DRY_RUN
@_STRICT
async def keyshield(
    *,
    url: str,
    owner: str | None,
    config: str,
    keys_only: bool,
    endings: bool,
    tables: tuple[str, ...],
    dry_run: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Imports the keys of keyshield (fastapi-api-key), for one owner; needs KEYSHIELD_PEPPER."""
    from keybearer.adapters.sql.origins import open_origin
    from keybearer.operations import fromothers
    from keybearer.operations.arriving import Choices

    async with operator(accounts=not keys_only) as call, open_origin(url) as origin:
        choices = Choices(
            owner=await _owner_id(call, owner, keys_only=keys_only), config=config,
            keys_only=keys_only, dry_run=dry_run, endings=endings, names=_names(tables),
        )  # fmt: skip
        report = await fromothers.move_keyshield(call, origin, choices)
    tell(report, strict=strict, as_json=as_json)


@command(move_in, "unkey")
@click.argument("file", type=click.File("rb"))
@_OWNER
@_CONFIG
@_KEYS_ONLY
@_ENDINGS
@_DRY_RUN
@_STRICT
async def unkey(
    *,
    file: IO[bytes],
    owner: str | None,
    config: str,
    keys_only: bool,
    endings: bool,
    dry_run: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Imports keys in the form that Unkey takes for a migration, one JSON object a line."""
    from keybearer.operations import fromothers
    from keybearer.operations.arriving import Choices

    async with operator(accounts=not keys_only) as call:
        choices = Choices(
            owner=await _owner_id(call, owner, keys_only=keys_only), config=config,
            keys_only=keys_only, dry_run=dry_run,
        )  # fmt: skip
        report = await fromothers.move_unkey(call, file, choices)
    tell(report, strict=strict, as_json=as_json)


async def _owner_id(call: "Call", owner: str | None, *, keys_only: bool) -> str | None:
    """The id of the owner that was named; among our users unless they are kept elsewhere."""
    from keybearer.domain.model import ORGANIZATION
    from keybearer.operations import people

    if owner is None or keys_only or owner.startswith(ORGANIZATION):
        return owner
    return (await people.find(call, owner)).id


@command(move_in, "keybearer")
@click.argument("file", type=click.File("rb"))
@click.option("--keys-only", is_flag=True,
              help="Owners are ids of an app that keeps its users itself.")  # fmt: skip
@_ENDINGS
@_REPLACE
@click.option("--dry-run", is_flag=True, help="Write nothing, and say what would happen.")
@_STRICT
async def of_keybearer(
    *,
    file: IO[bytes],
    keys_only: bool,
    endings: bool,
    replace_unverified: bool,
    dry_run: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Imports what `keybearer export` wrote; `-` reads it from stdin."""
    from keybearer.operations import leaving

    async with operator(accounts=not keys_only) as call:
        report = await leaving.move(
            call, file, dry_run=dry_run, keys_only=keys_only, endings=endings,
            replace_unverified=replace_unverified,
        )  # fmt: skip
    tell(report, strict=strict, as_json=as_json)


@command(None, "export")
@click.option("--hashes", is_flag=True,
              help="With hashes of passwords and digests of keys: keep it safe.")  # fmt: skip
async def export(*, hashes: bool, as_json: bool) -> None:
    """Writes users, keys, usage and the audit trail to stdout, as lines of JSON; no secrets."""
    from keybearer.operations import leaving

    count = 0
    async with operator() as call:
        async for line in leaving.export(call, hashes=hashes):
            answer(line.decode())
            count += 1
    if not as_json:
        say(f"{count} lines")


def tell(report: "Report", *, strict: bool, as_json: bool) -> None:
    """Shows what an import did, or would do.

    Exit code 1 where lines are missing, or what ended there goes on here.

    Args:
        strict: whether that is so too where something was skipped.
    """
    if as_json:
        answer(encode(report))
    else:
        _show(report)
    goes_on = not all(each.carried for each in report.ended)
    if report.truncated or goes_on or (strict and report.skipped):
        raise click.exceptions.Exit(1)


def _show(report: "Report") -> None:
    rows = [
        (what, *(str(n) for n in (count.found, count.imported, count.present, count.skipped)))
        for what, count in (
            ("users", report.users), ("keys", report.keys), ("sessions", report.sessions),
        )
        if count.found
    ]  # fmt: skip
    done = "WOULD IMPORT" if report.dry_run else "IMPORTED"
    answer(table(("", "FOUND", done, "ALREADY HERE", "SKIPPED"), rows))
    for note in report.notes:
        say(f"not carried over, {note.count}×: {note.note}")
    for each in report.skipped[:_SHOWN]:
        say(visible(f"skipped {each.kind} {each.id}: {each.reason}"))
    if len(report.skipped) > _SHOWN:
        say(f"and {len(report.skipped) - _SHOWN} more: --json lists them all")
    if report.truncated:
        say("the export has no end: it was cut off, and lines are missing")
    for ended in report.ended:
        done = "so it is here now" if ended.carried else "it goes on here: --endings ends it"
        say(visible(f"{ended.what} there, {ended.kind} {ended.id}: {done}"))
    if report.dry_run:
        say("nothing was written")


def _names(tables: tuple[str, ...]) -> dict[str, str]:
    names = {}
    for text in tables:
        usual, equals, name = text.partition("=")
        if not equals or not usual or not name:
            raise click.UsageError(f"--table takes USUAL=NAME, as apikey=api_keys, not {text!r}")
        names[usual] = name
    return names
