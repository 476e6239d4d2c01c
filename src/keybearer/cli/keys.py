"""`keybearer keys`: make, list, show, revoke, rotate and check API keys."""

import sys
from typing import TYPE_CHECKING, Any

import click

from keybearer.cli.operator import check_owner, operator, owner_of
from keybearer.cli.output import answer, command, encode, receipt, say, stdin_line, table
from keybearer.cli.rotation import UNTIL_FINISHED, goes_on, grace_seconds, rotation

if TYPE_CHECKING:
    from keybearer.operations.keywire import ApiKey

_STATES = ("active", "expiring", "expired", "disabled", "revoked", "rotating")


@click.group()
def keys() -> None:
    """API keys: create, list, show, revoke, rotate, rotation, verify."""


@command(keys, "create")
@click.option("--owner", metavar="EMAIL", help="Whose key it is, by address.")
@click.option("--owner-id", metavar="ID", help="Whose key it is, by a host app's own id.")
@click.option("--name", required=True, help="What the key is for.")
@click.option("--description", help="More words.")
@click.option("--expires-in", metavar="90d|never", help="How long it lives; else the default.")
@click.option("--permission", "permissions", multiple=True, metavar="files:read",
              help="What it may do; several times.")  # fmt: skip
@click.option("--prefix", help="One of KEY_PREFIX.")
@click.option("--ip-allow", multiple=True, metavar="CIDR", help="From where; several times.")
@click.option("--rate-limit", metavar="1000/1m|off", help="At most so many requests in a time.")
@click.option("--remaining", type=click.IntRange(0), help="How many requests in all.")
async def create(
    *,
    owner: str | None,
    owner_id: str | None,
    name: str,
    description: str | None,
    expires_in: str | None,
    permissions: tuple[str, ...],
    prefix: str | None,
    ip_allow: tuple[str, ...],
    rate_limit: str | None,
    remaining: int | None,
    as_json: bool,
) -> None:
    """Creates a key and prints it, the only time it is shown."""
    from msgspec import UNSET

    from keybearer.operations.keys import CreateKey, create_api_key

    check_owner(owner, owner_id)
    if owner is None and owner_id is None:
        raise click.UsageError("say whose key it is: --owner EMAIL or --owner-id ID")
    asked: dict[str, Any] = {
        "name": name,
        "description": description,
        "expires_in": UNSET if expires_in is None else _seconds(expires_in),
        "permissions": _permissions(permissions) if permissions else UNSET,
        "prefix": prefix,
        "ip_allow": list(ip_allow) or None,
        "remaining": UNSET if remaining is None else remaining,
        **_rate(rate_limit),
    }
    async with operator(accounts=owner_id is None) as call:
        asked["user_id"] = await owner_of(call, owner, owner_id)
        made = await create_api_key(call, CreateKey(**asked))
    if as_json:
        answer(encode(made))
        return
    say(f"created {made.id} for {owner or owner_id}, {_until(made)}; the key is not shown again")
    answer(made.key or "")


@command(keys, "list")
@click.option("--owner", metavar="EMAIL", help="Only this person's.")
@click.option("--owner-id", metavar="ID", help="Only this owner's.")
@click.option("--status", multiple=True, type=click.Choice(_STATES), help="Several times.")
@click.option("--search", default="", help="Part of name, description or start.")
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True)
@click.option("--offset", type=click.IntRange(0, 1_000_000), default=0)
async def listing(
    *,
    owner: str | None,
    owner_id: str | None,
    status: tuple[Any, ...],
    search: str,
    limit: int,
    offset: int,
    as_json: bool,
) -> None:
    """Lists keys, newest first: everybody's, or one owner's."""
    from msgspec import UNSET

    from keybearer.operations.keys import ListKeys, list_api_keys

    check_owner(owner, owner_id)
    async with operator() as call:
        of = await owner_of(call, owner, owner_id)
        asked = ListKeys(
            limit=limit, offset=offset, status=status, search=search, user_id=of or UNSET
        )
        page = await list_api_keys(call, asked)
    if as_json:
        answer(encode(page))
        return
    rows = [
        (key.id, key.start + "…", key.name, key.status, key.expires_at or "never",
         key.last_request or "never", key.reference_id)
        for key in page.api_keys
    ]  # fmt: skip
    answer(table(("ID", "START", "NAME", "STATUS", "EXPIRES", "LAST USED", "OWNER"), rows))
    if page.total > len(page.api_keys):
        say(f"{len(page.api_keys)} of {page.total}")


@command(keys, "show")
@click.argument("id")
async def show(*, id: str, as_json: bool) -> None:
    """Shows one key's record; the secret is nowhere to be shown."""
    from keybearer.operations.keys import GetKey, get_api_key

    async with operator() as call:
        key = await get_api_key(call, GetKey(id=id))
    answer(encode(key) if as_json else _record(key))


@command(keys, "revoke")
@click.argument("id")
@click.option("--reason", help="For the audit trail.")
async def revoke(*, id: str, reason: str | None, as_json: bool) -> None:
    """Ends a key for ever; returns when no process accepts it any more."""
    from keybearer.operations.keyends import RevokeKey, revoke_api_key

    async with operator() as call:
        done = await revoke_api_key(call, RevokeKey(key_id=id, reason=reason))
    if as_json:
        answer(encode(done))
    else:
        say(f"revoked; {receipt(done.nodes, done.waited_ms)}")


@command(keys, "rotate")
@click.argument("id")
@click.option("--grace", default="1d", show_default=True, metavar=f"1d|0|{UNTIL_FINISHED}",
              help="For how long the old secret goes on.")  # fmt: skip
async def rotate(*, id: str, grace: str, as_json: bool) -> None:
    """Gives a key a new secret and prints it; id, limits and history stay."""
    from keybearer.operations.keyends import RotateKey, rotate_api_key

    asked = RotateKey(key_id=id, grace_period=grace_seconds(grace))
    async with operator() as call:
        made = await rotate_api_key(call, asked)
    if as_json:
        answer(encode(made))
        return
    say(f"rotated {made.id}; the old secret {goes_on(grace)}; the new one is not shown again")
    answer(made.key or "")


keys.add_command(rotation)


@command(keys, "verify")
@click.option("--permission", "permissions", multiple=True, metavar="files:read",
              help="What it must be allowed; several times.")  # fmt: skip
@click.option("--ip", help="The address of whoever presented it.")
async def verify(*, permissions: tuple[str, ...], ip: str | None, as_json: bool) -> None:
    """Checks a key that is read from stdin, and counts no use.

    Exit code 0: it is good; 1: it is not, and why.
    """
    from keybearer.operations.verify import VerifyKey, verify_api_key

    presented = stdin_line("Key")
    async with operator() as call:
        asked = VerifyKey(
            key=presented, permissions=_permissions(permissions) or None, ip=ip, cost=0
        )
        verdict = await verify_api_key(call, asked)
    if as_json:
        answer(encode(verdict))
    elif verdict.key is not None:
        answer(_record(verdict.key))
    elif verdict.error is not None:
        say(f"keybearer: {verdict.error.code}: {verdict.error.message}")
    if not verdict.valid:
        sys.exit(1)


def _seconds(text: str) -> int | None:
    from keybearer.domain.durations import parse_duration

    if text == "never":
        return None
    try:
        return parse_duration(text) // 1000
    except ValueError as error:
        raise click.UsageError(f"{text!r}: {error}") from None


def _permissions(names: tuple[str, ...]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name in names:
        resource, colon, action = name.rpartition(":")
        if not colon or not resource or not action:
            raise click.UsageError(
                f"--permission takes resource:action, as files:read, not {name!r}"
            )
        grouped.setdefault(resource, []).append(action)
    return grouped


def _rate(text: str | None) -> dict[str, object]:
    from keybearer.domain.durations import parse_rate

    if text is None:
        return {}
    try:
        rate = parse_rate(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r}: {error}") from None
    if rate is None:
        return {"rate_limit_enabled": False}
    return {
        "rate_limit_enabled": True,
        "rate_limit_max": rate[0],
        "rate_limit_time_window": rate[1],
    }


def _until(key: "ApiKey") -> str:
    return "which never expires" if key.expires_at is None else f"until {key.expires_at}"


def _record(key: "ApiKey") -> str:
    import msgspec

    members = msgspec.to_builtins(key).items()
    rows = [(name, _plain(value)) for name, value in members]
    return table(("FIELD", "VALUE"), rows)


def _plain(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else encode(value)
