"""Write everything down but secrets, as lines that another keybearer reads; and read them.

export   head ▸ users ▸ keys, each page with its usage ▸ the audit trail ▸ end
import   users and keys as from any other system; usage of keys that are here; no events:
         the trail of one database cannot be a part of another's
"""

from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import TypeVar

import msgspec

from keybearer.adapters.sql import audit
from keybearer.adapters.sql import leaving as sql
from keybearer.domain.arrivals import ArrivingSecret, Sort
from keybearer.domain.errors import Failure, Misuse
from keybearer.domain.foreign import SCHEMES
from keybearer.domain.instants import iso
from keybearer.domain.model import ORGANIZATION
from keybearer.domain.uses import Count
from keybearer.operations import lines
from keybearer.operations.arriving import numbered, read_row, reason_of
from keybearer.operations.declaration import Call
from keybearer.operations.linerules import count_from, key_from, user_from
from keybearer.operations.lines import (
    AnyLine,
    EndLine,
    EventLine,
    HeadLine,
    KeyLine,
    SecretLine,
    UsageLine,
    UserLine,
)
from keybearer.operations.moving import Moving, Report

T = TypeVar("T")

ORIGIN = "keybearer"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyLine).decode


# --- out ---


async def export(call: Call, *, hashes: bool) -> AsyncIterator[bytes]:
    """Every line, in order.

    Args:
        hashes: whether the hashes of passwords and the digests of keys are in it: then both go on
            to work under the same SECRET, and the lines are to be kept like a backup.

    Raises:
        Failure: ADMIN_REQUIRED.
        Unavailable: the database is lost.
    """
    if not call.trusted:
        raise Failure("ADMIN_REQUIRED")
    count = 0
    async for line in _lines(call, hashes=hashes):
        yield _encode(line)
        count += 1
    yield _encode(EndLine(lines=count))


async def _lines(call: Call, *, hashes: bool) -> AsyncIterator[AnyLine]:
    read, after = call.app.database.read, ""
    yield HeadLine(keybearer=lines.VERSION, exported_at=iso(call.now), hashes=hashes)
    while users := await read(partial(sql.users_after, after=after)):
        for user in users:
            yield lines.user_line(user, hashes=hashes)
        after = users[-1].id
    after = ""
    while keys := await read(partial(sql.keys_after, after=after, now=call.now)):
        ids = [key.id for key in keys]
        secrets = await read(partial(sql.secrets_of, ids=ids)) if hashes else {}
        for key in keys:
            yield lines.key_line(key, [_secret_line(s) for s in secrets.get(key.id, ())])
        for count in await read(partial(sql.usage_of, ids=ids)):
            yield lines.usage_line(count)
        after = ids[-1]
    for chain in range(audit.CHAINS):
        seq = 0
        events, seq = await read(partial(sql.events_after, chain=chain, after=seq))
        while events:
            for event in events:
                yield _event_line(event)
            events, seq = await read(partial(sql.events_after, chain=chain, after=seq))


def _secret_line(secret: ArrivingSecret) -> SecretLine:
    ends = secret.usable_until
    return SecretLine(
        digest=secret.digest.hex(),
        pepper_id=secret.pepper_id,
        created_at=iso(secret.created_at),
        start=secret.start,
        usable_until=None if ends is None else iso(ends),
        scheme=secret.scheme,
        foreign_hash=secret.foreign_hash,
    )


def _event_line(event: audit.Event) -> EventLine:
    return EventLine(**{**msgspec.structs.asdict(event), "at": iso(event.at)})


# --- in ---


async def move(
    call: Call,
    text: Iterable[bytes],
    *,
    dry_run: bool,
    keys_only: bool = False,
    endings: bool = False,
    replace_unverified: bool = False,
) -> Report:
    """Imports the lines of an export; what is here already stays as it is.

    Args:
        keys_only: whether the users stay elsewhere: owners are their ids, and nobody is looked up.
        endings: whether what was ended there since the last run is ended here.
        replace_unverified: whether an account that has not proven an address makes room.

    Raises:
        Failure: ADMIN_REQUIRED.
        Misuse: it is no export, or one of a later version.
        Unavailable: the database is lost; what was imported before stays.
    """
    moving = Moving(call, ORIGIN, dry_run=dry_run, endings=endings, replaces=replace_unverified)
    counts: list[Count] = []
    settled = keys_only
    headed = False
    before = 0
    last: AnyLine | None = None
    for number, raw in numbered(text):
        before, last = before + 1, None
        try:
            line = _decode(raw)
        except (msgspec.MsgspecError, RecursionError) as error:
            if not headed:
                raise Misuse("this is no export of keybearer") from None
            moving.skip("line", str(number), reason_of(error))
            continue
        last = line
        if not headed:
            _check_head(line)
            headed = True
        elif isinstance(line, UserLine):
            if not keys_only:
                await _arrive_user(moving, line)
        elif isinstance(line, KeyLine):
            if not settled:
                await moving.settle()
                settled = True
            await _arrive_key(moving, line, owned=not keys_only)
        elif isinstance(line, UsageLine):
            await _gather(moving, counts, line, number, dry_run=dry_run)
    if not headed:
        raise Misuse("this is no export of keybearer: there is nothing in it")
    moving.truncated = not isinstance(last, EndLine) or last.lines != before - 1
    await moving.settle()
    await _write_usage(moving, counts, dry_run=dry_run)
    return await moving.finish()


def _check_head(line: AnyLine) -> None:
    if not isinstance(line, HeadLine):
        raise Misuse("this is no export of keybearer: its first line has the type head")
    if line.keybearer != lines.VERSION:
        raise Misuse(f"the export has version {line.keybearer}, and this reads {lines.VERSION}")


async def _arrive_user(moving: Moving, line: UserLine) -> None:
    user = _read(moving, "user", line.id, partial(user_from, moving, line))
    if user is not None:
        await moving.arrive(user)


async def _arrive_key(moving: Moving, line: KeyLine, *, owned: bool) -> None:
    arriving = _read(moving, "key", line.id, partial(key_from, moving, line))
    if arriving is None:
        return
    if owned and not line.owner_id.startswith(ORGANIZATION):
        await moving.learn({line.owner_id})
        if line.owner_id not in moving.owners:
            moving.note("the key of an owner who is no user here")
    if not arriving.secrets:
        moving.note("no digest: the key works once it is rotated")
    ring = moving.call.app.ring
    if any(
        each.pepper_id not in SCHEMES and ring.find(each.pepper_id) is None
        for each in arriving.secrets
    ):
        moving.note("a digest under another SECRET: the key works once it is rotated")
    await moving.arrive(arriving)


def _read(moving: Moving, sort: Sort, id: str, convert: Callable[[], T]) -> T | None:
    """What a line becomes; None where it is broken, which is told."""
    return read_row(moving, sort, {"id": id}, lambda _: convert())


async def _gather(
    moving: Moving, counts: list[Count], line: UsageLine, number: int, *, dry_run: bool
) -> None:
    count = _read(moving, "line", str(number), partial(count_from, line))
    if count is not None:
        counts.append(count)
    if len(counts) >= sql.PAGE:
        await moving.settle()
        await _write_usage(moving, counts, dry_run=dry_run)


async def _write_usage(moving: Moving, counts: list[Count], *, dry_run: bool) -> None:
    """Writes what was counted of keys that are here; hours that are counted stay."""
    known = [count for count in counts if count.key_id in moving.keys]
    counts.clear()
    if not dry_run:
        await moving.call.app.database.write(partial(sql.add_usage, counts=known))
