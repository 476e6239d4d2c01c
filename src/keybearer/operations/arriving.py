"""What every origin has in common: a row becomes a user or a key, or the reason why not."""

import codecs
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from keybearer.adapters.sql.origins import Origin
from keybearer.domain import emails
from keybearer.domain.arrivals import ArrivingKey, ArrivingSecret, Sort
from keybearer.domain.credentials import REFRESH_PREFIX, SERVICE_PREFIX
from keybearer.domain.errors import Failure, Misuse
from keybearer.domain.foreign import Scheme, name_of
from keybearer.domain.foreignpasswords import kept
from keybearer.domain.ids import new_id
from keybearer.domain.model import ORGANIZATION, Key, User
from keybearer.domain.records import Record
from keybearer.operations.declaration import Call
from keybearer.operations.keyconfig import DEFAULT, MAX_NAME
from keybearer.operations.moving import Moving

T = TypeVar("T")

LONGEST_NAME = 100


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may say of an import.

    Attributes:
        owner: whose keys those are that name nobody there: a user's id, or `organization:<id>`.
        config: the configuration that the keys will be of.
        verified: whether the addresses are known to be their owners'.
        keys_only: whether the users stay elsewhere: owners are their ids, and nobody is looked up.
        endings: whether what was ended there since the last run is ended here.
        replace_unverified: whether an account that has not proven an address makes room for
            whoever comes with it.
        names: what the tables are called, where not as usual.
    """

    owner: str | None = None
    config: str = DEFAULT
    verified: bool = False
    keys_only: bool = False
    dry_run: bool = False
    endings: bool = False
    replace_unverified: bool = False
    names: Mapping[str, str] = {}


def open_moving(call: Call, origin: str, choices: Choices) -> Moving:
    """An import, as it was chosen."""
    return Moving(
        call, origin, dry_run=choices.dry_run, endings=choices.endings,
        replaces=choices.replace_unverified,
    )  # fmt: skip


async def rows_of(
    origin: Origin, choices: Choices, usual: str, *, required: bool
) -> AsyncIterator[Record]:
    """The rows of a table; none where it is missing and need not be there.

    Raises:
        Misuse: it is missing.
    """
    name = choices.names.get(usual, usual)
    if name not in await origin.tables():
        if required or usual in choices.names:
            raise Misuse(f"there is no table {name!r}; --table {usual}=NAME tells another name")
        return
    async for page in origin.pages(name):
        for record in page:
            yield record


def read_row(
    moving: Moving, sort: Sort, record: Record, convert: Callable[[Record], T]
) -> T | None:
    """What a row becomes; None where it is broken, which is told."""
    try:
        return convert(record)
    except Failure as failure:
        reason = failure.message
    except (ValueError, OverflowError, RecursionError) as error:
        reason = reason_of(error)
    moving.skip(sort, str(record.get("id")), reason)
    return None


def numbered(text: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines with something in them, counted from 1; a byte order mark is none of the first."""
    for number, raw in enumerate(text, start=1):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        if line.strip():
            yield number, line


def reason_of(error: Exception) -> str:
    """Why a row is broken, by what reading it raised."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, OverflowError):
        return "a number or an instant is out of range"
    return str(error)


def one_line(text: str | None, longest: int) -> str:
    """Text without control characters, cut where it is too long for us."""
    return "".join(filter(str.isprintable, text or "")).strip()[:longest]


def arriving_user(
    moving: Moving,
    *,
    id: str,
    address: str,
    name: str,
    hashed: str | None,
    verified: bool,
    active: bool,
    created_at: int,
) -> User:
    """A user of another system; ValueError for an address that is none."""
    email = emails.normalise(address)
    return User(
        id=id,
        email=email,
        name=one_line(name, LONGEST_NAME) or email.partition("@")[0],
        image=None,
        role="user",
        locale=None,
        email_verified_at=created_at if verified else None,
        disabled_at=None if active else moving.call.now,
        password_hash=password_of(moving, hashed),
        created_at=created_at,
        updated_at=created_at,
    )


def password_of(moving: Moving, hashed: str | None) -> str | None:
    """The hash as it is kept; none, with a note, where there is none that can be checked here."""
    if hashed is not None:
        try:
            return kept(hashed)
        except ValueError:
            pass  # told with those who have none: all of them choose one
    moving.note("no password: they choose one at “forgot password”")
    return None


def check_usable(key: Key) -> None:
    """ValueError for a key of elsewhere that looks like what is no key here."""
    for ours in (SERVICE_PREFIX, REFRESH_PREFIX):
        if key.prefix.startswith(ours) or key.start.startswith(ours):
            raise ValueError(f"what begins with {ours} is no key here: it could never be used")


def owner_of(moving: Moving, choices: Choices, id: str | None) -> str:
    """Whose key it is; ValueError where that is nobody here."""
    if id is not None and id.startswith(ORGANIZATION):
        raise ValueError("its owner has an id as organizations have here: --owner alone names one")
    owner = choices.owner if id is None else id
    if owner is None:
        raise ValueError("it names no owner: --owner says whose it is")
    known = choices.keys_only or owner.startswith(ORGANIZATION)
    if not known and owner not in moving.owners:
        raise ValueError("its owner is no user here")
    return owner


def arriving_key(
    scheme: Scheme,
    found_by: bytes,
    *,
    owner: str,
    config: str,
    created_at: int,
    id: str | None = None,
    foreign_hash: str | None = None,
    **fields: Any,
) -> ArrivingKey:
    """A key of another system.

    Args:
        id: unless given, one that the same key gets again the next time.
        foreign_hash: what decides, where it is only found by a name.
        fields: more of its record.
    """
    digest = name_of(scheme, found_by)
    mark = hashlib.sha256(digest).digest()
    values: dict[str, Any] = {
        **dict.fromkeys(Key.__struct_fields__),
        "id": id or new_id(created_at, mark[:10]),
        "owner_id": owner,
        "config_id": config,
        "prefix": "",
        "start": "",
        "enabled": True,
        "created_at": created_at,
        "updated_at": created_at,
        "created_by": owner,
        "ip_allow": (),
        "rate_limit_enabled": False,
        "request_count": 0,
        "deleted": False,
        **fields,
    }
    values["name"] = one_line(values["name"], MAX_NAME) or None
    key = Key(**values)
    check_usable(key)
    secret = ArrivingSecret(
        digest=digest,
        pepper_id=scheme,
        created_at=created_at,
        start=key.start or None,
        scheme=scheme,
        foreign_hash=None if foreign_hash is None else kept(foreign_hash),
    )
    return ArrivingKey(key=key, secrets=(secret,))
