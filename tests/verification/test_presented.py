"""One credential, none, or too many; exact bytes."""

from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers as StarletteHeaders

from keybearer.domain.errors import Unavailable
from keybearer.domain.model import Refusal
from keybearer.verification.presented import (
    MAX_CREDENTIAL,
    Places,
    Presented,
    raw,
    read,
    user_agent,
)

COOKIE = b"session"
AUTH, KEY, JAR = b"authorization", b"x-api-key", b"cookie"


def parts(*headers: tuple[bytes, bytes]) -> tuple[bytes, str] | str | None:
    """Credential and way, or the refusal's code."""
    found = read(headers, COOKIE)
    if isinstance(found, Refusal):
        return found.code
    return None if found is None else (found.credential, found.via)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([(b"host", b"x"), (b"accept", b"*/*")], None),
        ([(AUTH, b"Bearer abc")], (b"abc", "bearer")),
        ([(AUTH, b"bearer abc")], (b"abc", "bearer")),
        ([(AUTH, b"BEARER abc")], (b"abc", "bearer")),
        ([(KEY, b"abc")], (b"abc", "header")),
        ([(JAR, b"session=abc")], (b"abc", "cookie")),
        ([(JAR, b"a=1; session=abc;b=2")], (b"abc", "cookie")),
        ([(JAR, b"a=1"), (JAR, b"session=abc")], (b"abc", "cookie")),
        ([(JAR, b"session=a=b")], (b"a=b", "cookie")),
        # nothing is trimmed, decoded, folded or split
        ([(AUTH, b"Bearer  abc")], (b" abc", "bearer")),
        ([(AUTH, b"Bearer abc ")], (b"abc ", "bearer")),
        ([(AUTH, b"Bearer a,b")], (b"a,b", "bearer")),
        ([(AUTH, b"Bearer \xff%41")], (b"\xff%41", "bearer")),
        ([(KEY, b" abc")], (b" abc", "header")),
        # another scheme, or none
        ([(AUTH, b"Basic abc")], "INVALID_ACCESS_TOKEN"),
        ([(AUTH, b"Bearer")], "INVALID_ACCESS_TOKEN"),
        ([(AUTH, b"Bearer\tabc")], "INVALID_ACCESS_TOKEN"),
        ([(AUTH, b"Bearerabc")], "INVALID_ACCESS_TOKEN"),
        ([(AUTH, b"abc")], "INVALID_ACCESS_TOKEN"),
        ([(AUTH, b"")], "INVALID_ACCESS_TOKEN"),
        ([(AUTH, b" Bearer abc")], "INVALID_ACCESS_TOKEN"),
        ([(AUTH, b"Bearer ")], "INVALID_ACCESS_TOKEN"),
        ([(KEY, b"")], "INVALID_API_KEY"),
        # too many
        ([(AUTH, b"Bearer a"), (AUTH, b"Bearer a")], "MULTIPLE_CREDENTIALS"),
        ([(AUTH, b"Bearer a"), (KEY, b"a")], "MULTIPLE_CREDENTIALS"),
        ([(KEY, b"a"), (AUTH, b"Bearer a")], "MULTIPLE_CREDENTIALS"),
        ([(KEY, b"a"), (AUTH, b"Basic a")], "MULTIPLE_CREDENTIALS"),
        ([(AUTH, b"Basic a"), (KEY, b"a")], "INVALID_ACCESS_TOKEN"),
        ([(KEY, b"a"), (KEY, b"b")], "MULTIPLE_CREDENTIALS"),
        ([(KEY, b""), (KEY, b"b")], "MULTIPLE_CREDENTIALS"),
        # what is presented decides, never the cookie beside it
        ([(JAR, b"session=abc"), (KEY, b"bad")], (b"bad", "header")),
        ([(AUTH, b"Basic x"), (JAR, b"session=abc")], "INVALID_ACCESS_TOKEN"),
        ([(KEY, b""), (JAR, b"session=abc")], "INVALID_API_KEY"),
        # cookies that are not ours, or not one
        ([(JAR, b"other=abc")], None),
        ([(b"x", b"session=abc")], None),
        ([(JAR, b"session")], None),
        ([(JAR, b"session=")], None),
        ([(JAR, b"Session=abc")], None),
        ([(JAR, b"xsession=abc")], None),
        ([(JAR, b"Xsession=abcX")], None),
        ([(JAR, b"a=1;\tsession=abc\t;")], (b"abc", "cookie")),
        ([(JAR, b"session=a; session=b")], None),
        ([(JAR, b"session=a"), (JAR, b"session=a")], None),
        ([(JAR, b"")], None),
        ([(JAR, b";;;")], None),
    ],
)
def test_what_the_headers_present(
    headers: list[tuple[bytes, bytes]], expected: tuple[bytes, str] | str | None
) -> None:
    assert parts(*headers) == expected


@pytest.mark.parametrize(
    ("name", "before", "code"),
    [
        (AUTH, b"Bearer ", "INVALID_ACCESS_TOKEN"),
        (KEY, b"", "INVALID_API_KEY"),
        (JAR, b"session=", None),
    ],
)
def test_a_credential_has_8_kb_at_most(name: bytes, before: bytes, code: str | None) -> None:
    fits = b"a" * MAX_CREDENTIAL
    assert isinstance(read([(name, before + fits)], COOKIE), Presented)
    assert parts((name, before + fits + b"a")) == code


def test_the_user_agent_goes_along() -> None:
    found = read([(b"user-agent", b"curl/8"), (KEY, b"abc")], COOKIE)
    assert isinstance(found, Presented)
    assert found.user_agent == b"curl/8"


def test_what_is_presented_does_not_show_itself() -> None:
    assert repr(Presented(b"secret", "bearer", None)) == "Presented(via='bearer')"


names = st.sampled_from([AUTH, KEY, JAR, b"user-agent", b"x"])
values = st.one_of(
    st.binary(max_size=30),
    st.binary(max_size=20).map(lambda rest: b"Bearer " + rest),
    st.binary(max_size=20).map(lambda rest: b"session=" + rest),
)


@given(st.lists(st.tuples(names, values), max_size=6))
def test_hostile_headers_never_give_a_credential_that_was_not_sent(
    headers: list[tuple[bytes, bytes]],
) -> None:
    found = read(headers, COOKIE)
    explicit = [value for name, value in headers if name in {AUTH, KEY}]
    if isinstance(found, Presented):
        assert 0 < len(found.credential) <= MAX_CREDENTIAL
        assert any(found.credential in value for _, value in headers)
        assert (found.via == "cookie") == (not explicit)
        assert len(explicit) <= 1
    elif found is None:
        assert not explicit
    else:
        assert explicit


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "abc"},
        [("X-API-Key", "abc")],
        [(b"X-API-Key", b"abc")],
        StarletteHeaders({"X-API-Key": "abc"}),
        StarletteHeaders(raw=[(b"x-api-key", b"abc")]),
        httpx2.Headers({"X-API-Key": "abc"}),
    ],
)
def test_headers_of_any_framework_become_raw_pairs(headers: object) -> None:
    assert raw(headers) == [(b"x-api-key", b"abc")]  # type: ignore[arg-type]


@pytest.mark.parametrize("type_", [StarletteHeaders, httpx2.Headers])
def test_what_was_sent_twice_stays_two(type_: Any) -> None:
    sent = [(b"x-api-key", b"a"), (b"x-api-key", b"b")]
    assert raw(type_(raw=sent) if type_ is StarletteHeaders else type_(sent)) == sent


def test_text_that_no_header_can_hold_becomes_no_other_credential() -> None:
    assert raw({"x-api-key": "k\u0131b"}) == [(b"x-api-key", b"k?b")]
    assert raw({"x-api-key": "é"}) == [(b"x-api-key", b"\xe9")]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([], None),
        ([(KEY, b"abc")], None),
        ([(b"user-agent", b"curl/8 \xe9")], "curl/8 é"),
        ([(b"user-agent", b"a\r\n\x1b[1mb\x00")], "a???[1mb?"),
        ([(b"user-agent", b"first"), (b"user-agent", b"second")], "first"),
        ([(b"user-agent", b"")], ""),
        ([(b"user-agent", b"a" * 201)], "a" * 200),
    ],
)
def test_a_user_agent_is_told_in_printing_characters(
    headers: list[tuple[bytes, bytes]], said: str | None
) -> None:
    assert user_agent(headers) == said


def test_no_more_of_a_user_agent_is_kept_than_is_shown() -> None:
    presented = read([(b"authorization", b"Bearer x"), (b"user-agent", b"a" * 60_000)], b"s")
    assert isinstance(presented, Presented)
    assert presented.user_agent == b"a" * 200


def test_a_key_in_another_place_is_in_its_own() -> None:
    places = Places([b"x-one", b"x-api-key"])
    told = places.told([(b"x-one", b"kb_1"), (b"accept", b"*/*")])
    assert list(told) == [(b"x-api-key", b"kb_1"), (b"accept", b"*/*")]
    found = Places(getter=lambda headers: "kb_2").told([(b"accept", b"*/*")])
    assert list(found) == [(b"accept", b"*/*"), (b"x-api-key", b"kb_2")]
    assert list(Places(getter=lambda headers: None).told([(b"a", b"b")])) == [(b"a", b"b")]
    assert not Places([b"x-api-key"])
    assert places
    assert Places(getter=lambda headers: None)


def test_what_a_getter_gives_is_text_or_no_answer() -> None:
    odd: Any = lambda headers: b"kb_2"  # noqa: E731
    with pytest.raises(Unavailable, match="getter= must give a key or None"):
        Places(getter=odd).told([])
    told = Places(getter=lambda headers: "\ud800").told([])
    assert list(told) == [(b"x-api-key", b"\xed\xa0\x80")]
    assert list(Places(getter=lambda headers: "").told([(b"a", b"b")])) == [(b"a", b"b")]


def test_a_getter_that_fails_is_told_by_its_name_alone() -> None:
    def failing(headers: Any) -> str:
        raise ValueError("kb_secret")

    with pytest.raises(Unavailable) as told:
        Places(getter=failing).told([(b"x-api-key", b"kb_1")])
    assert told.value.reason == "getter= raised ValueError"
    assert list(Places([b"x-one"], failing).named([(b"x-one", b"k")])) == [(b"x-api-key", b"k")]


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ([(AUTH, b"Token kb_1")], []),
        ([(AUTH, b"Bearer kb_1")], []),
        ([(KEY, b"kb_1")], []),
        ([(AUTH, b"kb_1")], []),
        ([(AUTH, b"Token kb_1"), (KEY, b"kb_1")], [(KEY, b"kb_1")]),
        ([(AUTH, b"Token kb_1"), (KEY, b"kb_2")], [(KEY, b"kb_2")]),
        ([(AUTH, b"Tokenkb_1")], [(AUTH, b"Tokenkb_1")]),
        ([(AUTH, b"Token kb_1 ")], [(AUTH, b"Token kb_1 ")]),
        ([(b"x", b"Token kb_1")], [(b"x", b"Token kb_1")]),
    ],
)
def test_the_header_that_a_getter_has_read_is_no_second_credential(
    sent: list[tuple[bytes, bytes]], left: list[tuple[bytes, bytes]]
) -> None:
    told = Places(getter=lambda headers: "kb_1").told(sent)
    assert list(told) == [*left, (KEY, b"kb_1")]
