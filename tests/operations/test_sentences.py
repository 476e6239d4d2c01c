"""Who sent a wrong input is told which field it was, and what that field takes."""

from typing import Annotated, Any, Literal

import msgspec
import pytest

from keybearer.domain.errors import Failure
from keybearer.operations.accounts import UpdateUser
from keybearer.operations.declaration import Empty, Input
from keybearer.operations.keyedits import UpdateKey
from keybearer.operations.keyends import RevokeKey
from keybearer.operations.keys import CreateKey, ListKeys
from keybearer.operations.reports import AskDailyUsage
from keybearer.operations.tokens import Login
from keybearer.operations.verify import VerifyBatch, VerifyKey
from keybearer.web.exchange import convert

STATUS = "one of active, disabled, expired, expiring, revoked, rotating"
VERIFY = "key, permissions, ip, configId, cost"


class Odd(Input, frozen=True, kw_only=True):
    """What no input of ours has yet."""

    least: Annotated[int, msgspec.Meta(ge=3)] = 3
    most: Annotated[int, msgspec.Meta(le=9)] = 3
    long: Annotated[str, msgspec.Meta(min_length=2)] = "ab"
    words: tuple[Literal["a", "b"], ...] = ()
    part: RevokeKey | None = None
    ratio: float = 0.5


def refused(value: object, type_: type[Any], *, strict: bool = True) -> tuple[str, str]:
    with pytest.raises(Failure) as failure:
        convert(value, type_, strict=strict)
    return failure.value.code, failure.value.message


def test_a_query_with_a_field_too_often_is_told_how_often_it_may_stand() -> None:
    asked = {"keyId": ["k"] * 101}
    sentence = "keyId must be text of 1 to 64 characters, at most 100 times."
    assert refused(asked, AskDailyUsage, strict=False) == ("VALIDATION_ERROR", sentence)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"limit": "1.5"}, "limit must be a whole number from 1 to 100."),
        *(
            ({"limit": text}, "limit must be a whole number from 1 to 100.")
            for text in ("1e1", "1.0", "1e-0", "+1", " 1", "1_0", "\uff11", "")
        ),
        ({"limit": "101"}, "limit must be a whole number from 1 to 100."),
        ({"offset": ""}, "offset must be a whole number from 0 to 1000000."),
        ({"status": ["active", "nope"]}, f"status must be {STATUS}."),
        ({"sortDirection": "up"}, "sortDirection must be one of asc, desc."),
        ({"search": "x" * 101}, "search must be text of up to 100 characters."),
        ({"userId": ""}, "userId must be text of 1 to 64 characters."),
    ],
)
def test_a_query_is_told_what_is_right(asked: dict[str, object], sentence: str) -> None:
    assert refused(asked, ListKeys, strict=False) == ("VALIDATION_ERROR", sentence)


@pytest.mark.parametrize(
    ("asked", "type_", "sentence"),
    [
        ([], CreateKey, "The body must be a JSON object."),
        (None, Empty, "The body must be a JSON object."),
        ({}, VerifyKey, "key is missing: it must be text of 1 to 8192 characters."),
        ({"expiresIn": "9"}, CreateKey, "expiresIn must be a whole number or null."),
        ({"enabled": 1, "keyId": "k"}, UpdateKey, "enabled must be true or false."),
        ({"ipAllow": "::1"}, CreateKey, "ipAllow must be a list (each text) or null."),
        ({"ipAllow": [1]}, CreateKey, "ipAllow[0] must be text."),
        ({"permissions": ["a"]}, CreateKey,
         "permissions must be an object (each value a list (each text)) or null."),
        ({"permissions": {"files": "read"}}, CreateKey,
         "each value of permissions must be a list (each text)."),
        ({"keys": []}, VerifyBatch,
         f"keys must be a list of 1 to 100 items (each an object with the fields {VERIFY})."),
        ({"keys": [{"key": "a"}, {"key": "a", "cost": -1}]}, VerifyBatch,
         "keys[1].cost must be a whole number from 0 to 1000000."),
        ({"keys": [{}]}, VerifyBatch,
         "keys[0].key is missing: it must be text of 1 to 8192 characters."),
        ({"keys": [3]}, VerifyBatch, f"keys[0] must be an object with the fields {VERIFY}."),
        ({"email": "a", "password": "b", "clientId": "é"}, Login,
         "clientId must be 1 to 64 letters, digits, dots, underscores or hyphens."),
        ({"least": 2}, Odd, "least must be a whole number of 3 or more."),
        ({"most": 10}, Odd, "most must be a whole number of at most 9."),
        ({"long": "a"}, Odd, "long must be text of 2 characters or more."),
        ({"words": "a"}, Odd, "words must be a list (each one of a, b)."),
        ({"part": {}}, Odd, "part.keyId is missing: it must be text of 1 to 64 characters."),
        ({"ratio": "x"}, Odd, "ratio must be a number."),
    ],
)  # fmt: skip
def test_a_body_is_told_what_is_right(asked: object, type_: Any, sentence: str) -> None:
    assert refused(asked, type_) == ("VALIDATION_ERROR", sentence)


def test_an_unknown_field_is_told_the_known_ones() -> None:
    assert refused({"nick": "Ada"}, UpdateUser) == (
        "UNKNOWN_FIELD",
        "The request has a field `nick` that does not exist: it takes name, image, locale.",
    )
    assert refused({"keys": [{"key": "a", "x": 1}]}, VerifyBatch) == (
        "UNKNOWN_FIELD",
        f"keys[0] has a field `x` that does not exist: it takes {VERIFY}.",
    )
    assert refused({"x": "1"}, Empty, strict=False) == (
        "UNKNOWN_FIELD",
        "The request has a field `x` that does not exist: it takes none.",
    )


@pytest.mark.parametrize(
    "name",
    [
        "x` - at `$.limit",
        "x` - at `$.limit[0]",
        "x` - at `$.userId[0]",
        "x\n",
        "é" * 900,
        "` - at `$.no[3].way`",
        "",
    ],
)
def test_a_field_of_any_name_is_answered(name: str) -> None:
    code, message = refused({name: "1"}, ListKeys, strict=False)
    assert code in ("UNKNOWN_FIELD", "VALIDATION_ERROR")
    assert len(message) < 300
