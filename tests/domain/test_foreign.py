"""By what keys of elsewhere are found, and how hashes of elsewhere are kept."""

import hashlib
import hmac
import sys

import pytest

from keybearer.adapters import foreignhashes
from keybearer.domain import foreign
from keybearer.domain.errors import Unavailable
from keybearer.domain.foreign import Scheme, is_name, name_of
from keybearer.domain.foreignpasswords import Bcrypt, Pbkdf2, Scrypt, b64, kept, read, unb64

SALT = b64(b"ab" * 16)
B43 = "A" * 43
SCRYPT = b64(hashlib.scrypt(b"secret", salt=b"ab" * 16, n=16, r=1, p=1, dklen=64))
PBKDF2 = b64(hashlib.pbkdf2_hmac("sha256", b"secret", b"ab" * 16, 10))
BCRYPT = "2b$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


def test_a_name_says_of_which_scheme_it_is() -> None:
    key = b"ak_v1-0123456789abcdef-secret"
    assert foreign.names(key, {"sha256"}) == [b"sha256:" + hashlib.sha256(key).digest()]
    assert foreign.names(key, {"sha512"}) == [b"sha512:" + hashlib.sha512(key).digest()]
    assert foreign.names(key, {"keyshield", "drf"}) == [b"keyshield:0123456789abcdef"]
    assert foreign.names(b"prefix.secret", {"keyshield", "drf"}) == [b"drf:prefix"]
    assert foreign.names(key, foreign.NO_SCHEMES) == []


@pytest.mark.parametrize("prefix", [b"p", b"x" * 64])
def test_a_prefix_has_1_to_64_letters(prefix: bytes) -> None:
    assert foreign.names(prefix + b".secret", {"drf"}) == [b"drf:" + prefix]


@pytest.mark.parametrize("key", [b"", b".secret", b"x" * 65 + b".secret", b"no dot"])
def test_what_has_no_prefix_is_not_looked_for(key: bytes) -> None:
    assert foreign.names(key, {"drf"}) == []


@pytest.mark.parametrize(
    "key",
    [
        b"ak_v1-0123456789abcde-secret", b"ak_v1-0123456789abcdef_secret", b"-0123456789abcdef-s",
        b"ak_v1-0123456789ABCDEF-secret", b"ak_v1-0123456789abcdef-", b"ak_v1 0123456789abcdef s",
    ],
)  # fmt: skip
def test_what_has_no_id_is_not_looked_for(key: bytes) -> None:
    assert foreign.names(key, {"keyshield"}) == []


def test_the_part_that_was_hashed() -> None:
    key = b"ak_v1-0123456789abcdef-secret"
    assert foreign.hashed_part(key, "drf", "$pbkdf2", "pepper") == key
    assert foreign.hashed_part(key, "keyshield", "$argon2id$", "pepper") == b"secretpepper"
    made = hmac.digest(b"pepper", b"secret", "sha256")
    assert foreign.hashed_part(key, "keyshield", "$2b$12$", "pepper") == made


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("ab" * 16 + ":" + "00" * 64, f"$scrypt$ln=14,r=16,p=1${SALT}$" + b64(bytes(64))),
        (f"scrypt$16384$salt$8$5${B43}=", f"$scrypt$ln=14,r=8,p=5$c2FsdA${B43}"),
        (f"pbkdf2_sha256$600000$salt${B43}=", f"$pbkdf2-sha256$i=600000$c2FsdA${B43}"),
        (f"pbkdf2_sha1$1000$salt${B43}=", f"$pbkdf2-sha1$i=1000$c2FsdA${B43}"),
        (f"bcrypt_sha256$${BCRYPT}", f"$bcrypt-sha256${BCRYPT}"),
        (f"bcrypt$${BCRYPT}", f"${BCRYPT}"),
        (f"argon2$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ${B43}",
         f"$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ${B43}"),
    ],
)  # fmt: skip
def test_a_hash_is_kept_in_one_form(text: str, form: str) -> None:
    assert kept(text) == form
    assert kept(form) == form


@pytest.mark.parametrize(
    "text",
    [
        f"$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ${B43}",
        f"$argon2id$v=19$m=262144,t=16,p=1$c2FsdHNhbHQ${B43}",
        f"$scrypt$ln=18,r=8,p=1$c2FsdA${B43}",
        f"$pbkdf2-sha256$i=1$c2FsdA${B43}",
        f"$pbkdf2-sha256$i=5000000$c2FsdA${B43}",
        "$" + BCRYPT.replace("$04$", "$15$"),
    ],
)
def test_what_costs_the_least_or_just_what_may_be_is_kept(text: str) -> None:
    assert kept(text) == text


def test_bytes_of_any_length_come_back_from_their_text() -> None:
    assert b64(bytes([0, 0, 23])) == "AAAX"
    for length in range(1, 40):
        raw = bytes(range(length))
        assert unb64(b64(raw)) == raw


def test_a_kept_hash_is_read() -> None:
    assert isinstance(read(f"$scrypt$ln=14,r=8,p=5$c2FsdA${B43}"), Scrypt)
    assert isinstance(read(f"$pbkdf2-sha1$i=1000$c2FsdA${B43}"), Pbkdf2)
    assert read(f"${BCRYPT}") == Bcrypt(before=False, rounds=4, text=b"$" + BCRYPT.encode())
    assert read("$else$") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain password",
        "ab:cd",
        f"$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHQ${B43}",
        f"$argon2id$v=19$m=65536,t=99,p=4$c2FsdHNhbHQ${B43}",
        f"$argon2id$v=19$m=65536,t=1,p=0$c2FsdHNhbHQ${B43}",
        f"$scrypt$ln=30,r=8,p=1$c2FsdA${B43}",
        f"$argon2id$v=19$m=65536,t=0,p=1$c2FsdHNhbHQ${B43}",
        f"$scrypt$ln=18,r=8,p=2$c2FsdA${B43}",
        f"$scrypt$ln=14,r=0,p=1$c2FsdA${B43}",
        f"$scrypt$ln=0,r=8,p=1$c2FsdA${B43}",
        f"scrypt$1$salt$8$1${B43}=",
        f"$scrypt$ln=16,r=1,p=1$c2FsdA${B43}",
        f"scrypt$16383$salt$8$5${B43}=",
        f"pbkdf2_sha256$99000000$salt${B43}=",
        f"pbkdf2_sha256$0$salt${B43}=",
        "$" + BCRYPT.replace("$04$", "$31$"),
    ],
)
def test_what_is_not_known_or_costs_too_much_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hash of the password"):
        kept(text)


@pytest.mark.parametrize(
    "hashed",
    [f"$scrypt$ln=4,r=1,p=1${SALT}${SCRYPT}", f"$pbkdf2-sha256$i=10${SALT}${PBKDF2}"],
)
def test_a_hash_is_checked_as_it_was_made(hashed: str) -> None:
    assert foreignhashes.check(hashed, b"secret") is True
    assert foreignhashes.check(hashed, b"Secret") is False


def test_bcrypt_is_checked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import bcrypt

    long = b"x" * 80
    hashed = bcrypt.hashpw(long[:72], bcrypt.gensalt(4)).decode()
    assert foreignhashes.check(hashed, long) is True
    before = bcrypt.hashpw(hashlib.sha256(long).hexdigest().encode(), bcrypt.gensalt(4)).decode()
    assert foreignhashes.check("$bcrypt-sha256" + before, long) is True
    assert foreignhashes.check("$bcrypt-sha256" + before, long[:72]) is False
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(Unavailable, match=r"keybearer\[bcrypt\]"):
        foreignhashes.check(hashed, long)


def test_a_form_that_is_not_known_is_told() -> None:
    assert foreignhashes.check("$else$", b"secret") is None


@pytest.mark.parametrize(
    ("scheme", "length", "fits"),
    [
        ("sha256", 32, True), ("sha256", 31, False), ("sha512", 64, True), ("sha512", 65, False),
        ("drf", 1, True), ("drf", 64, True), ("drf", 0, False), ("drf", 65, False),
        ("keyshield", 16, True), ("keyshield", 17, False),
    ],
)  # fmt: skip
def test_a_name_has_the_length_of_its_scheme(scheme: Scheme, length: int, fits: bool) -> None:
    assert is_name(scheme, name_of(scheme, b"x" * length)) == fits
    assert not is_name(scheme, b"other:" + b"x" * length)
