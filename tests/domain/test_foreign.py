"""By what keys of elsewhere are found, and how hashes of elsewhere are kept."""

import hashlib

import pytest

from keybearer.adapters import foreignhashes
from keybearer.domain import foreign, foreignpasswords
from keybearer.domain.foreignpasswords import kept, read_scrypt

SCRYPT = hashlib.scrypt(b"secret", salt=b"ab" * 16, n=16, r=1, p=1, dklen=64)


def test_a_name_says_of_which_scheme_it_is() -> None:
    digest = hashlib.sha256(b"key").digest()
    assert foreign.names(b"key", {"sha256"}) == [b"sha256:" + digest]
    assert foreign.names(b"key", foreign.NO_SCHEMES) == []


def test_hashes_of_better_auth_are_kept_with_their_cost() -> None:
    salt = "ab" * 16
    text = kept(f"{salt}:{'00' * 64}")
    scrypt = read_scrypt(text)
    assert scrypt is not None
    assert (scrypt.n, scrypt.r, scrypt.p) == (16_384, 16, 1)
    assert (scrypt.salt, scrypt.key) == (salt.encode(), bytes(64))
    assert kept(text) == text
    assert "…" in repr(scrypt)


def test_hashes_of_argon2_stay_as_they_are() -> None:
    text = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$" + "A" * 43
    assert kept(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain password",
        "ab:cd",
        "$argon2id$v=19$m=4194304,t=3,p=4$c29tZXNhbHRzYWx0$" + "A" * 43,
        "$argon2id$v=19$m=65536,t=99,p=4$c29tZXNhbHRzYWx0$" + "A" * 43,
        "$argon2id$v=19$m=65536,t=1,p=0$c29tZXNhbHRzYWx0$" + "A" * 43,
        "$scrypt$ln=30,r=8,p=1$c29tZXNhbHRzYWx0$" + "A" * 43,
        "$scrypt$ln=14,r=0,p=1$c29tZXNhbHRzYWx0$" + "A" * 43,
        "$scrypt$ln=14,r=8,p=0$c29tZXNhbHRzYWx0$" + "A" * 43,
    ],
)
def test_what_is_not_known_or_costs_too_much_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hash of the password"):
        kept(text)


def test_a_hash_is_checked_as_it_was_made() -> None:
    salt, key = foreignpasswords.b64(b"ab" * 16), foreignpasswords.b64(SCRYPT)
    hashed = f"$scrypt$ln=4,r=1,p=1${salt}${key}"
    assert foreignhashes.check(hashed, b"secret") is True
    assert foreignhashes.check(hashed, b"Secret") is False
    assert foreignhashes.check("$else$", b"secret") is None
