"""The first reason to refuse, in an order that tells no more than it must."""

import itertools
from typing import Any

import msgspec
import pytest

from keybearer.domain.judgement import judge
from keybearer.domain.model import Bars, Grant, Refusal, Session, bars_of
from keybearer.domain.networks import compile_allow_list

NOW = 1_795_000_000_000
NETWORK = compile_allow_list(["203.0.113.0/24"])
INSIDE, OUTSIDE = "203.0.113.7", "198.51.100.1"
READ = frozenset({"files:read"})
NOTHING = frozenset[str]()

# Each flaw with the code of a key that has it, in the order of judgement.
FLAWS: list[tuple[dict[str, Any], str]] = [
    ({"revoked_at": NOW + 1}, "KEY_REVOKED"),
    ({"usable_until": NOW}, "KEY_REVOKED"),
    ({"enabled": False}, "KEY_DISABLED"),
    ({"expires_at": NOW}, "KEY_EXPIRED"),
    ({"owner_state": "gone"}, "OWNER_DISABLED"),
    ({"allow": NETWORK}, "IP_NOT_ALLOWED"),
    ({"permissions": NOTHING}, "INSUFFICIENT_SCOPE"),
]


def grant(**fields: Any) -> Grant:
    bars = {name: fields.pop(name) for name in Bars.__struct_fields__ if name in fields}
    given: dict[str, Any] = {"kind": "key", "subject": "o", "id": "k", "permissions": READ} | fields
    return Grant(session=Session(**given), bars=bars_of(**bars))


def code(refusal: Refusal | None) -> str | None:
    return None if refusal is None else refusal.code


def test_a_sound_grant_is_not_refused() -> None:
    assert judge(grant(), READ, None, NOW) is None
    assert judge(grant(permissions=NOTHING), NOTHING, None, NOW) is None


@pytest.mark.parametrize(("flaw", "expected"), FLAWS)
def test_each_flaw_has_its_code(flaw: dict[str, Any], expected: str) -> None:
    refusal = judge(grant(**flaw), READ, OUTSIDE, NOW)
    assert refusal is not None
    assert (refusal.code, refusal.id) == (expected, "k")


@pytest.mark.parametrize("pair", list(itertools.combinations(FLAWS, 2)))
def test_of_two_flaws_the_graver_is_told(pair: tuple[Any, Any]) -> None:
    (first, expected), (second, _) = pair
    assert code(judge(grant(**{**second, **first}), READ, OUTSIDE, NOW)) == expected


@pytest.mark.parametrize("field", ["expires_at", "usable_until"])
def test_an_end_is_exact(field: str) -> None:
    ending = grant(**{field: NOW})
    assert judge(ending, READ, None, NOW - 1) is None
    assert judge(ending, READ, None, NOW) is not None


@pytest.mark.parametrize(
    ("kind", "flaw", "expected"),
    [
        ("session", {"revoked_at": 1}, "SESSION_ENDED"),
        ("access", {"revoked_at": 1}, "SESSION_ENDED"),
        ("service", {"revoked_at": 1}, "INVALID_ACCESS_TOKEN"),
        ("session", {"expires_at": NOW}, "SESSION_ENDED"),
        ("access", {"expires_at": NOW}, "TOKEN_EXPIRED"),
        ("session", {"expires_at": NOW, "allow": NETWORK}, "SESSION_ENDED"),
        ("session", {"owner_state": "disabled"}, "SESSION_ENDED"),
        ("access", {"owner_state": "unverified"}, "SESSION_ENDED"),
    ],
)
def test_other_kinds_have_codes_of_their_own(
    kind: str, flaw: dict[str, Any], expected: str
) -> None:
    assert code(judge(grant(kind=kind, **flaw), READ, None, NOW)) == expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        (INSIDE, None),
        (OUTSIDE, "IP_NOT_ALLOWED"),
        (None, "IP_NOT_ALLOWED"),
        ("?", "IP_NOT_ALLOWED"),
    ],
)
def test_an_allow_list_admits_known_addresses_alone(ip: str | None, expected: str | None) -> None:
    assert code(judge(grant(allow=NETWORK), READ, ip, NOW)) == expected


@pytest.mark.parametrize(
    ("held", "needed", "missing"),
    [
        (None, {"files:read"}, False),
        ({"files:read", "files:write"}, {"files:read"}, False),
        ({"files:read"}, {"files:read", "files:write"}, True),
        (set(), {"files:read"}, True),
        ({"files:*"}, {"files:read"}, True),
    ],
)
def test_every_needed_permission_must_be_held(
    held: set[str] | None, needed: set[str], missing: bool
) -> None:
    held_by = None if held is None else frozenset(held)
    refusal = judge(grant(permissions=held_by), frozenset(needed), None, NOW)
    assert (refusal is not None) == missing
    if refusal is not None:
        assert refusal == msgspec.structs.replace(
            Refusal(code="INSUFFICIENT_SCOPE", id="k"), needed=frozenset(needed)
        )
