"""What somebody filled in, and what of it cannot be used."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from keybearer.domain.errors import Failure
from keybearer.operations.stepup import VerifyPassword, verify_password
from keybearer.web.exchange import convert
from keybearer.web.pages import words
from keybearer.web.pages.visit import Visit

T = TypeVar("T")

FIELDS: Mapping[str, str] = {
    "EXPIRES_IN_IS_TOO_LARGE": "expires",
    "EXPIRES_IN_IS_TOO_SMALL": "expires",
    "INVALID_EMAIL": "email",
    "INVALID_IP_RANGE": "networks",
    "INVALID_NAME_LENGTH": "name",
    "KEY_EXPIRY_REQUIRED": "expires",
    "PASSWORD_TOO_COMMON": "new_password",
    "PASSWORD_TOO_LONG": "new_password",
    "PASSWORD_TOO_SHORT": "new_password",
    "SCOPE_NOT_HELD": "permissions",
    "SESSION_NOT_FRESH": "password",
}
"""At which field a refusal is told; others stand above the form."""


class Form:
    """The state of a form on a page.

    Attributes:
        values: what stands in its fields.
        errors: by field, in the language of the page; "" is the form as a whole.
        several: the fields that have more than one value.
    """

    def __init__(
        self,
        values: Mapping[str, str] | None = None,
        *,
        several: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.values = dict(values or {})
        self.errors: dict[str, str] = {}
        self.several = dict(several or {})

    def get(self, name: str, otherwise: str = "") -> str:
        """What stands in a field."""
        return self.values.get(name, otherwise)

    def has(self, name: str, value: str) -> bool:
        """Whether a field of many values has this one."""
        return value in self.several.get(name, ())

    @property
    def first(self) -> str:
        """The first field with an error, for the focus; "" where there is none."""
        return next((name for name in self.errors if name), "")

    def refuse(self, visit: Visit, failure: Failure, *, wrong: str = "password") -> int:
        """Tells a refusal at its field, and gives the status for the answer.

        Args:
            wrong: the field of a password that is none.
        """
        field = wrong if failure.code == "INVALID_PASSWORD" else FIELDS.get(failure.code, "")
        said = words.problem(visit.language, failure.code, visit.app.settings)
        self.errors[field] = said
        return failure.status


def checked(type_: type[T], values: Mapping[str, Any]) -> T:
    """An operation's input out of a form's fields.

    Raises:
        Failure: VALIDATION_ERROR, for one that is too long.
    """
    fields = {
        each.encode_name: values[each.name]
        for each in msgspec.structs.fields(type_)  # type: ignore[arg-type] # inputs are structs
        if values.get(each.name, UNSET) is not UNSET
    }
    made: T = convert(fields, type_, strict=True)
    return made


async def confirm(visit: Visit) -> None:
    """Confirms the password where the form has one: for what an old login may not do.

    Raises:
        Failure: INVALID_PASSWORD, TOO_MANY_ATTEMPTS.
    """
    password = visit.fields.get("password", "")
    if password:
        await visit.ask(verify_password, VerifyPassword(password=password))


async def must_confirm(visit: Visit) -> bool:
    """Whether a form asks for the password: the login is too old for what it does."""
    session = await visit.member()
    after = visit.app.settings.step_up_after
    if after is None or session.kind != "session" or session.authenticated_at is None:
        return False
    return visit.now - session.authenticated_at > after


def once() -> str:
    """The name of one sending of a form: sent again, it makes nothing twice."""
    return os.urandom(12).hex()
