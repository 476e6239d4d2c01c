"""What goes over the wire: words that several operations share."""

from typing import Annotated

import msgspec

from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso, parse_iso
from keybearer.domain.model import Session, User
from keybearer.operations.declaration import Call, Output

Timestamp = Annotated[
    str,
    msgspec.Meta(
        extra_json_schema={"format": "date-time", "examples": ["2026-11-24T00:09:17.089Z"]}
    ),
]
"""An instant: ISO 8601, UTC, milliseconds, `Z`."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
"""An id as somebody sends it; whether it exists is another question."""


class Success(Output, frozen=True, kw_only=True):
    """It is done."""

    success: bool = True


class Status(Output, frozen=True, kw_only=True):
    """It is done, as Better Auth says it."""

    status: bool = True


class UserRecord(Output, frozen=True, kw_only=True):
    """A user, as Better Auth shows it, and the language of mails that the user chose.

    `locale` is null unless one was chosen.
    """

    name: str
    email: str
    email_verified: bool
    image: str | None
    created_at: Timestamp
    updated_at: Timestamp
    id: str
    locale: str | None


def user_record(user: User) -> UserRecord:
    """What may be shown of a user to that user."""
    return UserRecord(
        name=user.name,
        email=user.email,
        email_verified=user.email_verified_at is not None,
        image=user.image,
        created_at=iso(user.created_at),
        updated_at=iso(user.updated_at),
        id=user.id,
        locale=user.locale,
    )


def instant(ms: int | None) -> str | None:
    """An instant for the wire, or None."""
    return None if ms is None else iso(ms)


def read_instant(text: str, field: str) -> int:
    """The milliseconds that somebody's ISO 8601 text means.

    Raises:
        Failure: VALIDATION_ERROR, which names the field.
    """
    try:
        return parse_iso(text)
    except ValueError as error:
        raise Failure("VALIDATION_ERROR", f"{field}: {error}") from None


def check_text(text: str, field: str, *, lines: bool = False) -> str:
    """Text as it was sent, if it has no control characters.

    Others, right-to-left marks and emoji among them, stay exactly as they are; whoever shows the
    text escapes and isolates it.

    Raises:
        Failure: VALIDATION_ERROR, which names the field.
    """
    for char in text:
        if (ord(char) < 32 and not (lines and char in "\n\t")) or 0x7F <= ord(char) < 0xA0:
            raise Failure("VALIDATION_ERROR", f"{field} must not have control characters.")
    return text


def one_line(text: str) -> str:
    """Text on one line, for where a second one would be another thing: nothing else is lost."""
    return " ".join(text.splitlines())


def refuse_server_only(call: Call, asked: msgspec.Struct, *names: str) -> None:
    """Fields that only the server may set are refused whatever their value: null is no way round.

    Raises:
        Failure: SERVER_ONLY_PROPERTY, unless the app, the command or a service calls.
    """
    if call.trusted:
        return
    for name in names:
        if getattr(asked, name) is not msgspec.UNSET:
            wire = asked.__struct_encode_fields__[asked.__struct_fields__.index(name)]
            raise Failure("SERVER_ONLY_PROPERTY", f"{wire} can only be set by the server.")


def is_admin(session: Session) -> bool:
    """Whether the caller logged in as an administrator, or is the operator."""
    return session.role == "admin" or session.kind == "operator"
