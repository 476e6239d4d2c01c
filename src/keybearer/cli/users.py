"""`keybearer users`: make, list, disable, enable and delete people."""

from typing import TYPE_CHECKING

import click

from keybearer.cli.operator import operator
from keybearer.cli.output import answer, command, encode, say, stdin_line, table

if TYPE_CHECKING:
    from keybearer.domain.model import User


@click.group()
def users() -> None:
    """People who log in: create, list, disable, enable, delete."""


@command(users, "create")
@click.argument("email")
@click.option("--name", required=True, help="The person's name.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.option("--verified", is_flag=True, help="The address is known to be theirs: no mail.")
@click.option("--admin", is_flag=True, help="May make keys where KEY_CREATION is admins.")
async def create(
    *, email: str, name: str, password_stdin: bool, verified: bool, admin: bool, as_json: bool
) -> None:
    """Creates a user.

    Without --password-stdin there is no password: a link to choose one is mailed, or, with
    --verified, the person asks for one at "forgot password".
    """
    from keybearer.operations import people

    password = stdin_line("Password") if password_stdin else None
    async with operator() as call:
        user = await people.create(
            call, email=email, name=name, password=password, verified=verified, admin=admin
        )
        base_url = call.app.settings.base_url
    if as_json:
        answer(encode(_shown(user)))
        return
    answer(user.id)
    say(f"created {user.email}")
    if not verified:
        say("a mail is on its way to that address: the serving process sends it, and")
        say(f"its links begin with {base_url}")


@command(users, "list")
@click.option("--search", default="", help="Part of the address or name.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
async def listing(*, search: str, limit: int, offset: int, as_json: bool) -> None:
    """Lists users, newest first."""
    from keybearer.operations import people

    async with operator() as call:
        found, total = await people.page(call, search=search, limit=limit, offset=offset)
    if as_json:
        shown = [_shown(user) for user in found]
        answer(encode({"users": shown, "total": total, "limit": limit, "offset": offset}))
        return
    rows = [(user.id, user.email, user.name, user.role, _state(user)) for user in found]
    answer(table(("ID", "EMAIL", "NAME", "ROLE", "STATE"), rows))
    if total > len(found):
        say(f"{len(found)} of {total}")


@command(users, "disable")
@click.argument("who", metavar="EMAIL|ID")
async def disable(*, who: str, as_json: bool) -> None:
    """Ends every login of a user; keys are refused until `enable`."""
    from keybearer.operations import people

    async with operator() as call:
        user = await people.disable(call, who)
    _tell("disabled", user, as_json=as_json)


@command(users, "enable")
@click.argument("who", metavar="EMAIL|ID")
async def enable(*, who: str, as_json: bool) -> None:
    """Lets a disabled user log in again; keys that were not revoked work again."""
    from keybearer.operations import people

    async with operator() as call:
        user = await people.enable(call, who)
    _tell("enabled", user, as_json=as_json)


@command(users, "delete")
@click.argument("who", metavar="EMAIL|ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
async def delete(*, who: str, yes: bool, as_json: bool) -> None:
    """Deletes a user and revokes their keys; the audit trail stays."""
    from keybearer.operations import people

    async with operator() as call:
        user = await people.find(call, who)
        if not yes:
            click.confirm(
                f"Delete {user.email} and revoke every key of theirs?", abort=True, err=True
            )
        await people.delete(call, user.id)
    _tell("deleted", user, as_json=as_json)


def _tell(done: str, user: "User", *, as_json: bool) -> None:
    if as_json:
        answer(encode({"success": True, "user": _shown(user)}))
    else:
        say(f"{done} {user.email}; no process goes by the old state any more")


def _state(user: "User") -> str:
    if user.disabled_at is not None:
        return "disabled"
    return "active" if user.email_verified_at is not None else "unverified"


def _shown(user: "User") -> dict[str, object]:
    import msgspec

    from keybearer.operations.wire import instant, user_record

    record: dict[str, object] = msgspec.to_builtins(user_record(user))
    return {**record, "role": user.role, "disabledAt": instant(user.disabled_at)}
