"""Secrets are minted, read and digested; what is not ours is told without a look-up."""

import hashlib
import os
import zlib
from base64 import b64encode
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keybearer.domain.credentials import (
    ALPHABET,
    CALENDAR_PREFIX,
    CHECKSUM_LENGTH,
    REFRESH_PREFIX,
    SECRET_LENGTH,
    SERVICE_PREFIX,
    PepperRing,
    RefreshToken,
    Secret,
    base62,
    checksum,
    derive,
    guessable,
    mint,
    mint_link_token,
    mint_session_token,
    parse_refresh_token,
    refresh_token,
    refresh_token_holds,
    service_token_hash,
    start_of,
    unbase62,
    well_formed,
)
from keybearer.domain.errors import Misuse

OLD = b"old-secret-old-secret-old-secret-old"
NEW = b"new-secret-new-secret-new-secret-new"
FAMILY = "00112233445566778899aabbccddeeff"
SEED = b"s" * 32


def minted(prefix: str = "kb_") -> bytes:
    return mint(prefix, os.urandom).reveal().encode()


def resealed(body: bytes) -> bytes:
    """A forgery with the right checksum: no secret is needed for that."""
    return body + checksum(body)


# --- secrets --------------------------------------------------------------------------------


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("kb_open")
    assert secret.reveal() == "kb_open"
    assert f"{secret!r} {secret} {[secret]}" == "Secret('…') Secret('…') [Secret('…')]"
    assert not hasattr(secret, "__dict__")


def test_secrets_are_equal_when_their_texts_are() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


# --- base62 ---------------------------------------------------------------------------------


@given(st.integers(0, 62**10 - 1))
def test_base62_reads_what_it_writes(number: int) -> None:
    text = base62(number, 10)
    assert len(text) == 10
    assert unbase62(text.encode()) == number


@pytest.mark.parametrize(("number", "length"), [(62, 1), (62**6, 6), (1, 0)])
def test_a_number_that_needs_more_digits_is_not_cut(number: int, length: int) -> None:
    with pytest.raises(ValueError, match="fit"):
        base62(number, length)


@pytest.mark.parametrize("text", [b"-", b"a b", b"\0", b"\xff", b"a_", "é".encode()])
def test_other_digits_are_no_number(text: bytes) -> None:
    assert unbase62(text) is None


@pytest.mark.parametrize("body", [b"", b"kb_", bytes(256)])
def test_a_checksum_has_six_digits(body: bytes) -> None:
    digits = checksum(body)
    assert len(digits) == CHECKSUM_LENGTH
    assert unbase62(digits) == zlib.crc32(body)


# --- minting --------------------------------------------------------------------------------


def test_a_key_has_prefix_secret_and_checksum() -> None:
    key = minted()
    assert len(key) == 3 + SECRET_LENGTH + CHECKSUM_LENGTH
    assert well_formed(key, [b"kb_"])


@pytest.mark.parametrize("drawn", [bytes(32), b"\xff" * 32])
def test_the_least_and_the_greatest_draw_make_keys(drawn: bytes) -> None:
    key = mint("kb_", lambda _: drawn).reveal().encode()
    assert well_formed(key, [b"kb_"])
    assert unbase62(key[3 : 3 + SECRET_LENGTH]) == int.from_bytes(drawn)


def test_minting_takes_256_bits_from_the_given_source() -> None:
    asked: list[int] = []

    def entropy(n: int) -> bytes:
        asked.append(n)
        return os.urandom(n)

    mint("kb_", entropy)
    mint_link_token(entropy)
    mint_session_token(entropy)
    assert asked == [32, 32, 32]


def test_p10_20_000_keys_are_distinct_and_their_digits_even() -> None:
    keys = [minted() for _ in range(20_000)]
    assert len(set(keys)) == len(keys)
    # 2**256 / 62**43 = 0.98: the first two digits lack the highest values.
    for position in range(3 + 2, 3 + SECRET_LENGTH + CHECKSUM_LENGTH):
        if 3 + SECRET_LENGTH <= position < 3 + SECRET_LENGTH + 2:
            continue  # 62**6 / 2**32 = 13: the first digit of a checksum is 0 to 4
        seen = Counter(key[position] for key in keys)
        expected = len(keys) / 62
        chi2 = sum((seen[ord(char)] - expected) ** 2 / expected for char in ALPHABET)
        # 61 degrees of freedom: above 150 is a chance of 1 in 10**9 for each position.
        assert chi2 < 150, f"position {position}: {chi2}"


def test_session_and_link_tokens_are_of_the_alphabet() -> None:
    session, link = mint_session_token(os.urandom).reveal(), mint_link_token(os.urandom).reveal()
    assert (len(session), len(link)) == (32, 43)
    assert set(session + link) <= set(ALPHABET)


@pytest.mark.parametrize("drawn", [bytes(32), b"\xff" * 32, hashlib.sha256(b"drawn").digest()])
def test_a_session_token_is_the_low_digits_of_what_was_drawn(drawn: bytes) -> None:
    session, link = mint_session_token(lambda _: drawn), mint_link_token(lambda _: drawn)
    assert session.reveal() == link.reveal()[-32:]
    assert unbase62(link.reveal().encode()) == int.from_bytes(drawn)


def test_the_start_shows_four_characters_of_the_secret() -> None:
    key = mint("acme_live_", os.urandom)
    assert start_of(key, "acme_live_") == key.reveal()[:14]


# --- reading --------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["kb_", "kb_test_", "x_"]))
def test_every_minted_key_is_well_formed_under_its_prefix_alone(drawn: bytes, prefix: str) -> None:
    key = mint(prefix, lambda _: drawn).reveal().encode()
    assert well_formed(key, [b"other_", prefix.encode()])
    assert not well_formed(key, [b"other_"])
    assert not well_formed(key, [])


@given(st.binary(max_size=80))
def test_no_bytes_are_taken_for_a_key(noise: bytes) -> None:
    assert not well_formed(noise, [b"kb_"])
    assert not well_formed(b"kb_" + noise, [b"kb_"])


@given(st.integers(0, 51), st.integers(0, 255))
def test_a_changed_byte_breaks_a_key(position: int, byte: int) -> None:
    key = bytearray(KEY)
    key[position] = byte
    assert well_formed(bytes(key), [b"kb_"]) == (bytes(key) == KEY)


KEY = minted()


@pytest.mark.parametrize(
    "credential",
    [
        KEY[:-1],
        KEY + b"0",
        KEY + b"\n",
        b" " + KEY,
        KEY.upper(),
        KEY.replace(b"kb_", b"KB_"),
        KEY.decode().encode("utf-16"),
        b"kb_" + b"0" * 49,
        resealed(b"ks_" + b"0" * SECRET_LENGTH),
        resealed(b"kb_" + b"0" * (SECRET_LENGTH - 1)),
        resealed(b"kb_" + b"0" * (SECRET_LENGTH + 1)),
        resealed(b"kb_" + b"-" * SECRET_LENGTH),
        resealed(b"kb_" + "é".encode() * 21 + b"0"),
        b"",
        b"kb_",
    ],
)
def test_what_is_nearly_a_key_is_none(credential: bytes) -> None:
    assert not well_formed(credential, [b"kb_"])


def test_one_prefix_may_begin_with_another() -> None:
    prefixes = [b"kb_", b"kb_test_"]
    assert well_formed(minted("kb_test_"), prefixes)
    assert well_formed(minted("kb_"), prefixes)


def test_the_prefixes_are_those_that_scanners_for_secrets_know() -> None:
    assert (SERVICE_PREFIX, REFRESH_PREFIX, CALENDAR_PREFIX) == ("kbs_", "kbr_", "kbc_")


def test_a_service_token_is_no_key() -> None:
    token = minted(SERVICE_PREFIX)
    assert well_formed(token, [SERVICE_PREFIX.encode()])
    assert not well_formed(token, [b"kb_"])


# --- peppers --------------------------------------------------------------------------------


def test_a_short_or_missing_secret_is_misuse() -> None:
    with pytest.raises(Misuse, match="32 bytes"):
        derive(b"x" * 31)
    with pytest.raises(Misuse, match="empty"):
        PepperRing([])


def test_what_was_made_under_a_secret_stays_good_in_later_versions() -> None:
    # The keys and the digest as `openssl dgst -sha256 -hmac` gives them.
    ring = PepperRing([b"a secret of 32 bytes, or of more"])
    pepper = ring.newest
    assert pepper.id == "62039162f791bc6b"
    assert [
        key.hex()[:16]
        for key in (
            *(pepper.digest_key, pepper.cookie_key, pepper.refresh_key),
            *(pepper.audit_key, pepper.signing_secret, pepper.flash_key),
        )
    ] == [
        *("47eb92643a876a3d", "195ed80049063439", "49817ecea53a00e3"),
        *("861be1ac8037bb11", "ede6a1b6cf0f0dab", "d73c6a75513fd30b"),
    ]
    assert ring.digest(b"kb_").hex() == (
        "b7efb95ebb4112ea9b3b375217df34ccd306c6f3be70b95afbbc0a0498dad74f"
    )
    assert ring.sign("abc") == "abc.E2w/t/XQ0qtoP1C4kbsO2DTsE0UO9lakVWc41ZvKwtk="
    token = refresh_token(pepper, family=FAMILY, generation=3, seed=SEED)
    assert token.reveal() == (
        "kbr_00ZwPT1JuHCcPPQLnHrlmQABat73lmuzBFAJDQFLeNkkopleG6c8ObXvh895rFVToYoOQO2U8xPv"
    )


def test_a_secret_of_32_bytes_is_long_enough() -> None:
    assert derive(b"x" * 32).id != derive(b"y" * 32).id


def test_each_use_has_its_own_key_and_none_is_shown() -> None:
    pepper = derive(NEW)
    keys = [
        pepper.digest_key,
        pepper.cookie_key,
        pepper.refresh_key,
        pepper.audit_key,
        pepper.signing_secret,
        pepper.flash_key,
        NEW,
    ]
    assert len(set(keys)) == len(keys)
    assert repr(pepper) == f"Pepper(id={pepper.id!r}, …)"
    assert len(pepper.id) == 16
    assert "new-secret" not in repr(PepperRing([NEW]))


@given(st.binary(max_size=100))
def test_a_rotated_ring_digests_with_the_new_secret_and_still_finds_the_old(
    credential: bytes,
) -> None:
    old, rotated = PepperRing([OLD]), PepperRing([NEW, OLD])
    assert rotated.digest(credential) == PepperRing([NEW]).digest(credential)
    assert rotated.digests(credential) == [rotated.digest(credential), old.digest(credential)]
    assert len(rotated.digest(credential)) == 32


def test_a_digest_is_of_the_whole_credential() -> None:
    ring = PepperRing([NEW])
    assert len({ring.digest(text) for text in (b"", b"a", b"a\0", b"A", b"a" * 100, KEY)}) == 6


def test_peppers_are_found_by_id_while_they_are_listed() -> None:
    old, rotated = PepperRing([OLD]), PepperRing([NEW, OLD])
    assert rotated.newest.id != old.newest.id
    assert rotated.find(old.newest.id) == old.newest
    assert PepperRing([NEW]).find(old.newest.id) is None


# --- signed cookies -------------------------------------------------------------------------


@given(st.text(max_size=40))
def test_a_signed_cookie_is_read_back(token: str) -> None:
    ring = PepperRing([NEW])
    assert ring.unsign(ring.sign(token)) == token


def test_a_signature_is_the_base64_of_better_auth() -> None:
    token, _, signature = PepperRing([NEW]).sign("abc").partition(".")
    assert token == "abc"
    assert len(signature) == 44
    assert signature.endswith("=")


def test_a_cookie_outlives_a_rotation_until_its_secret_goes() -> None:
    signed = PepperRing([OLD]).sign("abc")
    assert PepperRing([NEW, OLD]).unsign(signed) == "abc"
    assert PepperRing([NEW]).unsign(signed) is None


@pytest.mark.parametrize(
    "signed",
    [
        "",
        ".",
        "abc",
        "abc.",
        "abc.é",
        "abc." + "A" * 43 + "=",
        "abc." + b64encode(bytes(32)).decode(),
        "abd." + PepperRing([NEW]).sign("abc").partition(".")[2],
        PepperRing([NEW]).sign("")[1:],
        PepperRing([NEW]).sign("abc") + "=",
        PepperRing([NEW]).sign("abc")[:-1],
        PepperRing([NEW]).sign("abc").replace(".", ".."),
        "\ud800." + "A" * 44,
    ],
)
def test_a_forged_cookie_is_nobodys(signed: str) -> None:
    assert PepperRing([NEW, OLD]).unsign(signed) is None


@given(st.text(max_size=80))
def test_no_text_is_a_signed_cookie(text: str) -> None:
    assert PepperRing([NEW]).unsign(text) is None


# --- service tokens -------------------------------------------------------------------------


def test_a_service_tokens_hash_is_that_of_sha256sum() -> None:
    assert service_token_hash(b"abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


# --- refresh tokens -------------------------------------------------------------------------

families = st.binary(min_size=16, max_size=16).map(bytes.hex)
generations = st.integers(0, 2**32 - 1)


def made(generation: int = 3, *, secret: bytes = NEW, family: str = FAMILY) -> bytes:
    pepper = derive(secret)
    token = refresh_token(pepper, family=family, generation=generation, seed=SEED)
    return token.reveal().encode()


@given(families, generations, st.binary(min_size=32, max_size=32))
def test_a_refresh_token_says_its_family_and_generation(
    family: str, generation: int, seed: bytes
) -> None:
    ring = PepperRing([NEW])
    token = refresh_token(ring.newest, family=family, generation=generation, seed=seed)
    read = parse_refresh_token(token.reveal().encode())
    assert read is not None
    assert (read.family, read.generation) == (family, generation)
    assert refresh_token_holds(ring, read, seed=seed)
    assert not refresh_token_holds(ring, read, seed=seed[::-1] + b"x")


def test_a_refresh_token_can_be_made_again() -> None:
    assert made() == made()


def test_a_refresh_token_does_not_show_its_mac() -> None:
    read = parse_refresh_token(made())
    assert repr(read) == f"RefreshToken(family={FAMILY!r}, generation=3)"


def forged(token: bytes, **changed: object) -> bytes:
    """A token with parts exchanged and everything but the MAC made right again."""
    read = parse_refresh_token(token)
    assert read is not None
    family = changed.get("family", read.family)
    generation = changed.get("generation", read.generation)
    mac = changed.get("mac", read.mac)
    assert isinstance(family, str)
    assert isinstance(generation, int)
    assert isinstance(mac, bytes)
    raw = bytes.fromhex(family) + generation.to_bytes(4) + mac
    return resealed(b"kbr_" + base62(int.from_bytes(raw), 70).encode())


MAC = parse_refresh_token(made()).mac  # type: ignore[union-attr] # it is one


@pytest.mark.parametrize(
    "changed",
    [
        {"mac": bytes([MAC[0] ^ 1]) + MAC[1:]},
        {"mac": MAC[:-1] + bytes([MAC[-1] ^ 0x80])},
        {"mac": bytes(32)},
        {"generation": 4},
        {"generation": 2},
        {"family": "ff" + FAMILY[2:]},
    ],
)
def test_a_forged_refresh_token_parses_but_does_not_hold(changed: dict[str, object]) -> None:
    ring = PepperRing([NEW, OLD])
    read = parse_refresh_token(forged(made(), **changed))
    assert read is not None
    assert not refresh_token_holds(ring, read, seed=SEED)


def test_the_forgers_hand_is_right_but_for_the_mac() -> None:
    assert forged(made()) == made()


def test_a_refresh_token_outlives_a_rotation_until_its_secret_goes() -> None:
    read = parse_refresh_token(made(secret=OLD))
    assert read is not None
    assert refresh_token_holds(PepperRing([NEW, OLD]), read, seed=SEED)
    assert not refresh_token_holds(PepperRing([NEW]), read, seed=SEED)


@pytest.mark.parametrize(
    "credential",
    [
        b"",
        b"kbr_",
        made()[:-1],
        made() + b"0",
        made()[:-1] + (b"0" if made()[-1:] != b"0" else b"1"),
        made().replace(b"kbr_", b"kbs_"),
        resealed(b"kbr_" + b"z" * 70),
        resealed(b"kbr_" + base62(2**416, 70).encode()),  # one more than 52 bytes hold
        resealed(b"kbr_" + b"0" * 69),
        resealed(b"kbr_" + b"0" * 71),
        resealed(b"kbs_" + b"0" * 70),
        resealed(b"kbr_" + b"-" * 70),
        resealed(b"kbr_" + b"\xff" * 70),
        minted(),
    ],
)
def test_what_is_nearly_a_refresh_token_is_none(credential: bytes) -> None:
    assert parse_refresh_token(credential) is None


def test_the_greatest_refresh_token_is_read() -> None:
    read = parse_refresh_token(resealed(b"kbr_" + base62(2**416 - 1, 70).encode()))
    assert read == RefreshToken(family="f" * 32, generation=2**32 - 1, mac=b"\xff" * 32)


@settings(max_examples=200)
@given(st.binary(max_size=100))
def test_no_bytes_are_taken_for_a_refresh_token(noise: bytes) -> None:
    assert parse_refresh_token(noise) is None
    assert parse_refresh_token(b"kbr_" + noise) is None


def test_a_refresh_tokens_parts_are_a_value() -> None:
    assert RefreshToken(family="a", generation=1, mac=b"") == RefreshToken(
        family="a", generation=1, mac=b""
    )


# --- a SECRET that anybody would try --------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "x" * 40,
        "ab" * 20,
        "0123456789" * 4,
        "abcdefghijklmnopqrstuvwxyz123456",
        "ZYX-my-0123456789-of-something-xyz",
        "change-me-change-me-change-me-change-me",
        "Change_Me!-3f8Qw1Zr5Tk9Lm2Nx7Vb4",
        "your-secret-3f8Qw1Zr5Tk9Lm2Nx7Vb4",
        "an EXAMPLE 3f8Qw1Zr5Tk9Lm2Nx7Vb4",
    ],
)
def test_examples_repetitions_and_counted_rows_are_guessable(secret: str) -> None:
    assert guessable(secret)


RANDOM = "3f8Qw1Zr5Tk9Lm2Nx7Vb4"


@pytest.mark.parametrize(
    "example",
    [
        *("changeme", "change this", "replace-this", "ReplaceMe", "your secret", "super-secret"),
        *("example", "placeholder", "better-auth-secret"),
    ],
)
def test_words_of_examples_are_guessable_wherever_they_stand(example: str) -> None:
    assert guessable(f"{RANDOM}{example}{RANDOM[::-1]}")
    assert not guessable(f"{RANDOM}{example[::-1]}{RANDOM[::-1]}")


def test_a_row_of_nine_is_counted_and_one_of_eight_may_be_chance() -> None:
    assert guessable(f"{RANDOM}/abcdefghi/{RANDOM[::-1]}")
    assert not guessable(f"{RANDOM}/abcdefgh/{RANDOM[::-1]}")
    assert not guessable(f"abcdefgh/{RANDOM}")
    assert not guessable(f"{RANDOM}/abcdefgh/efghi/{RANDOM[::-1]}")


@pytest.mark.parametrize("unit", ["aB", RANDOM, "x"])
def test_any_unit_repeated_twice_is_a_repetition(unit: str) -> None:
    assert guessable(unit * 2)
    assert guessable(unit * 3)
    assert not guessable(f"{unit}/{unit}")


@given(st.binary(min_size=24, max_size=64))
def test_random_bytes_are_not_guessable_in_any_spelling(raw: bytes) -> None:
    digest = hashlib.sha512(raw).digest()
    for text in (digest.hex(), digest[:16].hex(), b64encode(digest).decode()):
        assert not guessable(text)
