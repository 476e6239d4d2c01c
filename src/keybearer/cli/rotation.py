"""`keybearer keys rotation`: look at a rotation, end it, give it more time, go back."""

from typing import TYPE_CHECKING

import click

from keybearer.cli.operator import operator
from keybearer.cli.output import answer, command, encode, say, table

if TYPE_CHECKING:
    from keybearer.operations.rotation import RotationSecret

UNTIL_FINISHED = "until-finished"


def grace_seconds(text: str) -> int | None:
    """How long an old secret goes on; None until somebody finishes the rotation.

    Raises:
        UsageError: it is neither 0, a duration nor `until-finished`.
    """
    from keybearer.domain.durations import parse_duration

    if text in ("0", UNTIL_FINISHED):
        return 0 if text == "0" else None
    try:
        return parse_duration(text) // 1000
    except ValueError as error:
        raise click.UsageError(f"--grace {text!r}: {error}, or 0, or {UNTIL_FINISHED}") from None


@click.group()
def rotation() -> None:
    """A key that has an old secret beside its new one: show, finish, extend, cancel."""


@command(rotation, "show")
@click.argument("id")
async def show(*, id: str, as_json: bool) -> None:
    """Shows the secrets that work, newest first, and which of them is still used."""
    from keybearer.operations.rotation import AboutRotation, get_rotation

    async with operator() as call:
        told = await get_rotation(call, AboutRotation(key_id=id))
    if as_json:
        answer(encode(told))
        return
    heads = ("START", "WORKS UNTIL", "REQUESTS", "LAST USED", "FROM")
    answer(table(heads, [_row(each) for each in told.secrets]))


@command(rotation, "finish")
@click.argument("id")
async def finish(*, id: str, as_json: bool) -> None:
    """Ends the old secret at once."""
    from keybearer.operations.rotation import AboutRotation, finish_rotation

    async with operator() as call:
        key = await finish_rotation(call, AboutRotation(key_id=id))
    if as_json:
        answer(encode(key))
    else:
        say(f"finished; only {key.start}… works now")


@command(rotation, "extend")
@click.argument("id")
@click.option("--grace", required=True, metavar=f"1d|{UNTIL_FINISHED}",
              help="For how long from now the old secret goes on.")  # fmt: skip
async def extend(*, id: str, grace: str, as_json: bool) -> None:
    """Lets the old secret go on for another time, counted from now."""
    from keybearer.operations.rotation import ExtendRotation, extend_rotation

    asked = ExtendRotation(key_id=id, grace_period=grace_seconds(grace))
    async with operator() as call:
        key = await extend_rotation(call, asked)
    if as_json:
        answer(encode(key))
    else:
        say(f"extended; the old secret of {key.id} {goes_on(grace)}")


@command(rotation, "cancel")
@click.argument("id")
async def cancel(*, id: str, as_json: bool) -> None:
    """Ends the new secret at once; the one that it replaced goes on."""
    from keybearer.operations.rotation import AboutRotation, cancel_rotation

    async with operator() as call:
        key = await cancel_rotation(call, AboutRotation(key_id=id))
    if as_json:
        answer(encode(key))
    else:
        say(f"cancelled; {key.start}… is the key again")


def goes_on(grace: str) -> str:
    """What becomes of an old secret, in words."""
    if grace == "0":
        return "has ended"
    if grace == UNTIL_FINISHED:
        return "works until the rotation is finished"
    return f"works for {grace} more"


def _row(secret: "RotationSecret") -> list[str | None]:
    ends = "current" if secret.current else secret.usable_until or "it is finished"
    count = str(secret.request_count)
    return [secret.start, ends, count, secret.last_request, secret.last_used_ip]
