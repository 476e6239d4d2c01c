"""Access tokens: what is signed is read, and nothing else; rows A169-A190 of the attacks."""

import json
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey

from keybearer.domain import jwt
from keybearer.domain.errors import Misuse
from keybearer.domain.jwt import AccessClaims, JwtRefusal, SealBroken, SigningKey

NOW = 1_800_000_000
NOW_MS = NOW * 1000
ISSUER = "https://auth.example.com"
AUDIENCE = "https://api.example.com"
KEY = jwt.generate("k1", NOW_MS, first=True)
KEYS = {"k1": KEY}
CLAIMS = AccessClaims(
    iss=ISSUER,
    sub="0190c1de-0000-7000-8000-000000000001",
    aud=AUDIENCE,
    exp=NOW + 300,
    iat=NOW,
    jti="0190c1de-0000-7000-8000-000000000002",
    sid="0190c1de-0000-7000-8000-000000000003",
    client_id="web",
    scope="read write",
)
PAYLOAD: dict[str, object] = msgspec.to_builtins(CLAIMS)
HEADER: dict[str, object] = {"typ": "at+jwt", "alg": "EdDSA", "kid": "k1"}
TOKEN = jwt.issue(KEY, CLAIMS)

# The order of Ed25519's group, RFC 8032 section 5.1.
L = 2**252 + 27742317777372353535851937790883648493


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "==")


def sign(header: bytes, payload: bytes, key: SigningKey = KEY) -> str:
    """A rightly signed token of any header and payload, which `issue` would not make."""
    signing_input = f"{encode(header)}.{encode(payload)}"
    private = key.key.private_key
    assert private is not None
    return f"{signing_input}.{encode(private.sign(signing_input.encode()))}"  # type: ignore[union-attr]  # our keys are Ed25519


def token_of(
    header: Mapping[str, object] = HEADER,
    payload: Mapping[str, object] = PAYLOAD,
    key: SigningKey = KEY,
) -> str:
    return sign(json.dumps(header).encode(), json.dumps(payload).encode(), key)


def changed(values: Mapping[str, object], **changes: object) -> dict[str, object]:
    return {**values, **changes}


def without(values: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != name}


def read(
    token: str | bytes,
    keys: Mapping[str, SigningKey] = KEYS,
    *,
    now: int = NOW,
    leeway: int = 5,
) -> AccessClaims | JwtRefusal:
    return jwt.read(
        token, keys, issuer=ISSUER, audience=AUDIENCE, now_seconds=now, leeway_seconds=leeway
    )


# ------------------------------------------------------------------------------------- what is read


def test_an_issued_token_is_read_back() -> None:
    assert read(TOKEN) == CLAIMS
    assert read(TOKEN.encode()) == CLAIMS


def test_the_header_is_that_of_rfc_9068() -> None:
    assert json.loads(decode(TOKEN.split(".")[0])) == HEADER


def test_reading_and_issuing_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(jwt.issue(KEY, CLAIMS)) == CLAIMS


def test_the_long_media_type_is_accepted() -> None:
    assert read(token_of(changed(HEADER, typ="application/at+jwt"))) == CLAIMS


def test_an_audience_may_stand_in_a_list() -> None:
    token = token_of(payload=changed(PAYLOAD, aud=["https://other.example.com", AUDIENCE]))
    assert read(token) == CLAIMS


def test_an_empty_scope_and_unknown_claims_are_accepted() -> None:
    token = token_of(payload=changed(PAYLOAD, scope="", auth_time=NOW, extra={"a": [1.5]}))
    assert read(token) == msgspec.structs.replace(CLAIMS, scope="")


def test_a_key_without_its_private_half_reads() -> None:
    public = SigningKey.from_jwk(KEY.to_jwk(private=False), created_at=NOW_MS, activates_at=NOW_MS)
    assert read(TOKEN, {"k1": public}) == CLAIMS
    with pytest.raises(Misuse, match="private half"):
        jwt.issue(public, CLAIMS)
    with pytest.raises(ValueError, match="not a private key"):
        public.to_jwk(private=True)


@pytest.mark.parametrize(
    "change", [{"sub": ""}, {"sub": "é"}, {"scope": "a\nb"}, {"exp": -1}, {"iat": 2**53}]
)
def test_nothing_is_issued_that_would_be_refused(change: dict[str, str | int]) -> None:
    with pytest.raises(Misuse, match="Claims"):
        jwt.issue(KEY, msgspec.structs.replace(CLAIMS, **change))


def test_a_token_over_8_kb_is_not_issued() -> None:
    with pytest.raises(Misuse, match="8192"):
        jwt.issue(KEY, msgspec.structs.replace(CLAIMS, scope="s" * 8000))


def test_a_token_of_8_kb_is_issued() -> None:
    key = jwt.generate("k12", NOW_MS, first=True)
    lengths = set()
    for size in range(5_600, 5_800):
        claims = msgspec.structs.replace(CLAIMS, scope="s" * size)
        try:
            lengths.add(len(jwt.issue(key, claims)))
        except Misuse:
            break
    assert max(lengths) == jwt.MAX_LENGTH


def test_clocks_may_differ_by_five_seconds_unless_said_otherwise() -> None:
    for late, outcome in ((4, CLAIMS), (5, JwtRefusal.EXPIRED)):
        now = CLAIMS.exp + late
        read = jwt.read(TOKEN, KEYS, issuer=ISSUER, audience=AUDIENCE, now_seconds=now)
        assert read == outcome


def test_a_refusal_is_called_what_it_is() -> None:
    assert [str(each) for each in JwtRefusal] == [each.name.lower() for each in JwtRefusal]


# ---------------------------------------------------------------------------------------- the key


@pytest.mark.parametrize(
    "kid",
    [
        "../../../dev/null",
        "/proc/self/environ",
        "k1' UNION SELECT 'x",
        "|id",
        "",
        "K1",
        "k1 ",
        "k1\0",
        "\ud800",
        "x" * 1000,
    ],
)
def test_a169_a_foreign_kid_is_an_unknown_key(kid: str) -> None:
    assert read(token_of(changed(HEADER, kid=kid))) is JwtRefusal.UNKNOWN_KEY


@pytest.mark.parametrize("kid", [["k1"], {"k1": 1}, None, 1, True, "x" * 1_000_000])
def test_a169_a_kid_of_another_kind_is_malformed(kid: object) -> None:
    assert read(token_of(changed(HEADER, kid=kid))) is JwtRefusal.MALFORMED


def test_a169_a_missing_kid_is_malformed() -> None:
    assert read(token_of(without(HEADER, "kid"))) is JwtRefusal.MALFORMED


def test_a170_a_retired_key_reads_nothing() -> None:
    retired = msgspec.structs.replace(KEY, retires_at=NOW_MS)
    assert read(TOKEN, {"k1": retired}) is JwtRefusal.UNKNOWN_KEY
    assert read(TOKEN, {"k1": retired}, now=NOW - 1) == CLAIMS


def test_a170_a_future_key_reads_nothing_but_clocks_may_differ() -> None:
    future = msgspec.structs.replace(KEY, activates_at=NOW_MS + 5001)
    assert read(TOKEN, {"k1": future}) is JwtRefusal.UNKNOWN_KEY
    assert read(TOKEN, {"k1": msgspec.structs.replace(KEY, activates_at=NOW_MS + 5000)}) == CLAIMS


@pytest.mark.parametrize(
    "key",
    [
        OKPKey.generate_key("X25519"),
        OKPKey.generate_key("Ed448"),
        ECKey.generate_key("P-256"),
    ],
)
def test_a170_keys_of_another_kind_are_not_taken(key: OKPKey | ECKey) -> None:
    text = json.dumps({"kid": "k1", **key.as_dict(private=True)})
    with pytest.raises(Misuse, match="Ed25519"):
        SigningKey.from_jwk(text, created_at=0, activates_at=0)


@pytest.mark.parametrize("kind", ["X25519", "Ed448"])
def test_a170_a_key_of_another_curve_verifies_nothing(kind: str) -> None:
    other = msgspec.structs.replace(KEY, key=OKPKey.generate_key(kind))  # type: ignore[arg-type]  # a curve's name
    assert read(TOKEN, {"k1": other}) is JwtRefusal.BAD_SIGNATURE


@pytest.mark.parametrize(
    "header",
    [
        changed(HEADER, crit=["exp"]),
        changed(HEADER, crit=["x-unknown"], **{"x-unknown": 1}),
        changed(HEADER, crit=[]),
        changed(HEADER, b64=False),
        changed(HEADER, b64=False, crit=["b64"]),
        changed(HEADER, zip="DEF"),
        changed(HEADER, cty="JWT"),
        changed(HEADER, jwk=KEY.key.as_dict()),
        changed(HEADER, jku="https://evil.example/jwks"),
        changed(HEADER, x5u="https://evil.example/x5"),
        changed(HEADER, x5c=["MIIB"]),
        changed(HEADER, x5t="x"),
        changed(HEADER, enc="A256GCM"),
    ],
)
def test_a171_a_header_member_that_we_do_not_know_is_malformed(header: dict[str, object]) -> None:
    assert read(token_of(header)) is JwtRefusal.MALFORMED


@pytest.mark.parametrize(
    "alg",
    ["none", "None", "", "eddsa", "Ed25519", "Ed448", "HS256", "ES256", None, 1, ["EdDSA"], {}],
)
def test_another_algorithm_is_malformed(alg: object) -> None:
    assert read(token_of(changed(HEADER, alg=alg))) is JwtRefusal.MALFORMED


def test_a_missing_algorithm_is_malformed() -> None:
    assert read(token_of(without(HEADER, "alg"))) is JwtRefusal.MALFORMED


@pytest.mark.parametrize(
    "typ",
    [
        "JWT",
        "id+jwt",
        "refresh+jwt",
        "AT+JWT",
        "at+JWT",
        "application/AT+JWT",
        "application/at+jwt; a=b",
        " at+jwt",
        "",
        1,
        None,
        ["at+jwt"],
    ],
)
def test_a172_another_type_is_refused(typ: object) -> None:
    assert read(token_of(changed(HEADER, typ=typ))) is JwtRefusal.WRONG_TYPE


def test_a172_a_missing_type_is_refused() -> None:
    assert read(token_of(without(HEADER, "typ"))) is JwtRefusal.WRONG_TYPE


# ------------------------------------------------------------------------------------- the claims


@pytest.mark.parametrize("name", sorted(PAYLOAD))
def test_a_missing_claim_is_malformed(name: str) -> None:
    assert read(token_of(payload=without(PAYLOAD, name))) is JwtRefusal.MALFORMED


@pytest.mark.parametrize("name", sorted(set(PAYLOAD) - {"exp", "iat"}))
@pytest.mark.parametrize("value", [None, 1, True, {}, ["x", 1], "x\n", "\ud800", "ü", "\x7f"])
def test_a190_text_of_another_kind_is_malformed(name: str, value: object) -> None:
    assert read(token_of(payload=changed(PAYLOAD, **{name: value}))) is JwtRefusal.MALFORMED


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "jti", "sid", "client_id"])
def test_empty_text_is_malformed(name: str) -> None:
    assert read(token_of(payload=changed(PAYLOAD, **{name: ""}))) is JwtRefusal.MALFORMED


@pytest.mark.parametrize("name", ["exp", "iat"])
@pytest.mark.parametrize(
    "text",
    [
        '"1800000300"',
        "1800000300.0",
        "1.8e9",
        "true",
        "null",
        "-1",
        "1e400",
        "NaN",
        "Infinity",
        "-Infinity",
        "[1800000300]",
        "{}",
        "9007199254740992",
        "9" * 5000,
    ],
)
def test_a175_a_time_of_another_kind_is_malformed(name: str, text: str) -> None:
    payload = json.dumps(changed(PAYLOAD, **{name: "HERE"})).replace('"HERE"', text)
    assert read(sign(json.dumps(HEADER).encode(), payload.encode())) is JwtRefusal.MALFORMED


@pytest.mark.parametrize(
    ("exp", "leeway", "refused"),
    [
        (NOW - 300, 5, True),
        (NOW - 5, 5, True),
        (NOW - 4, 5, False),
        (NOW, 0, True),
        (NOW + 1, 0, False),
        (0, 5, True),
    ],
)
def test_a175_expiry_counts_the_leeway_once(exp: int, leeway: int, refused: bool) -> None:
    claims = msgspec.structs.replace(CLAIMS, exp=exp, iat=0)
    expected = JwtRefusal.EXPIRED if refused else claims
    assert read(jwt.issue(KEY, claims), leeway=leeway) == expected


@pytest.mark.parametrize(("iat", "refused"), [(NOW + 5, False), (NOW + 6, True)])
def test_a175_a_token_from_the_future_is_refused(iat: int, refused: bool) -> None:
    claims = msgspec.structs.replace(CLAIMS, iat=iat)
    assert read(jwt.issue(KEY, claims)) == (JwtRefusal.NOT_YET if refused else claims)


@pytest.mark.parametrize(
    "issuer", [ISSUER + "/", ISSUER.upper(), "https://auth.example.co", "https://evil.example"]
)
def test_a184_another_issuer_is_refused(issuer: str) -> None:
    claims = msgspec.structs.replace(CLAIMS, iss=issuer)
    assert read(jwt.issue(KEY, claims)) is JwtRefusal.WRONG_ISSUER


@pytest.mark.parametrize("audience", [AUDIENCE + "/", "https://other.example.com", [], ["x", "y"]])
def test_a184_another_audience_is_refused(audience: object) -> None:
    token = token_of(payload=changed(PAYLOAD, aud=audience))
    assert read(token) is JwtRefusal.WRONG_AUDIENCE


def test_a184_another_key_of_the_same_kid_is_refused() -> None:
    staging = jwt.generate("k1", NOW_MS, first=True)
    assert read(jwt.issue(staging, CLAIMS)) is JwtRefusal.BAD_SIGNATURE


# -------------------------------------------------------------------------------- the signature


def test_a178_each_bit_of_the_three_parts_counts() -> None:
    parts = [decode(part) for part in TOKEN.split(".")]
    for index, part in enumerate(parts):
        for bit in range(len(part) * 8):
            flipped = bytearray(part)
            flipped[bit // 8] ^= 1 << bit % 8
            token = ".".join(map(encode, [*parts[:index], bytes(flipped), *parts[index + 1 :]]))
            assert isinstance(read(token), JwtRefusal), (index, bit)


def test_a178_each_bit_of_the_text_counts() -> None:
    for bit in range(len(TOKEN) * 8):
        flipped = bytearray(TOKEN.encode())
        flipped[bit // 8] ^= 1 << bit % 8
        assert isinstance(read(bytes(flipped)), JwtRefusal), bit


def _signed_with(signature: bytes) -> str:
    return f"{TOKEN.rpartition('.')[0]}.{encode(signature)}"


_SIGNATURE = decode(TOKEN.split(".")[2])
_R, _S = _SIGNATURE[:32], int.from_bytes(_SIGNATURE[32:], "little")
_IDENTITY = (1).to_bytes(32, "little")
_SMALL_ORDER = [
    bytes(32),
    _IDENTITY,
    (2**255 - 20).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(_R + (_S + L).to_bytes(32, "little"), id="S not reduced"),
        pytest.param(_R + (L - _S).to_bytes(32, "little"), id="S negated"),
        pytest.param(_R + L.to_bytes(32, "little"), id="S is the order"),
        pytest.param(_R + bytes(32), id="S zero"),
        pytest.param(_R + b"\xff" * 32, id="S all ones"),
        pytest.param(bytes(32) + _SIGNATURE[32:], id="R zero"),
        pytest.param(bytes(64), id="both zero"),
        pytest.param(b"\xff" * 64, id="all ones"),
        *(pytest.param(point + bytes(32), id=f"R {point.hex()[:8]}") for point in _SMALL_ORDER),
        pytest.param(_SIGNATURE[32:] + _R, id="halves swapped"),
        pytest.param(_SIGNATURE[:63], id="short"),
        pytest.param(_SIGNATURE + b"\0", id="long"),
        pytest.param(_SIGNATURE * 2, id="twice"),
        pytest.param(b"\x30\x44" + _SIGNATURE, id="in DER"),
        pytest.param(b"\0", id="one byte"),
    ],
)
def test_a179_a_signature_out_of_range_is_refused(signature: bytes) -> None:
    assert read(_signed_with(signature)) is JwtRefusal.BAD_SIGNATURE


def test_rfc_8037_a4_is_signed_alike() -> None:
    text = """{"kty":"OKP","crv":"Ed25519","kid":"a",
        "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"""
    key = SigningKey.from_jwk(text, created_at=0, activates_at=0)
    message = sign(b'{"alg":"EdDSA"}', b"Example of Ed25519 signing", key)
    assert message == (
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    assert jws.deserialize_compact(message, key.key, registry=jwt._REGISTRY).payload


# ----------------------------------------------------------------------------------- the wrapping


_HEADER_PART, _PAYLOAD_PART, _SIGNATURE_PART = TOKEN.split(".")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        f"{_HEADER_PART}.{_PAYLOAD_PART}",
        f"{_HEADER_PART}.{_PAYLOAD_PART}.",
        f"{_HEADER_PART}..{_SIGNATURE_PART}",
        f".{_PAYLOAD_PART}.{_SIGNATURE_PART}",
        f"{TOKEN}.",
        f"{TOKEN}.{_SIGNATURE_PART}.{_SIGNATURE_PART}",
        f"{TOKEN}=",
        f"{TOKEN}==",
        f"{TOKEN}\n",
        f" {TOKEN}",
        f"{TOKEN}\0",
        f"{TOKEN}é",
        f"{_HEADER_PART}=.{_PAYLOAD_PART}.{_SIGNATURE_PART}",
        f"{_HEADER_PART[:4]}\n{_HEADER_PART[4:]}.{_PAYLOAD_PART}.{_SIGNATURE_PART}",
        f"{_HEADER_PART}A.{_PAYLOAD_PART}.{_SIGNATURE_PART}",
        TOKEN.replace(".", ","),
        "{}",
        '{"payload":"","signatures":[]}',
    ],
)
def test_a180_what_is_not_three_canonical_parts_is_malformed(token: str) -> None:
    assert read(token) is JwtRefusal.MALFORMED
    assert read(token.encode()) is JwtRefusal.MALFORMED


def test_a180_stray_bits_in_the_last_character_are_malformed() -> None:
    # 64 bytes leave 4 unused bits in the last of 86 characters.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(TOKEN[-1])
    for stray in range(1, 16):
        token = TOKEN[:-1] + alphabet[last + stray]
        assert decode(token.split(".")[2]) == _SIGNATURE
        assert read(token) is JwtRefusal.MALFORMED


def test_a180_the_other_base64_alphabet_is_malformed() -> None:
    payload = json.dumps(changed(PAYLOAD, scope="??>>~~")).encode()
    token = sign(json.dumps(HEADER).encode(), payload)
    assert "_" in token.split(".")[1] or "-" in token.split(".")[1]
    assert read(token.replace("_", "/").replace("-", "+")) is JwtRefusal.MALFORMED


_HEADER_TEXT = json.dumps(HEADER)
_PAYLOAD_TEXT = json.dumps(PAYLOAD)


@pytest.mark.parametrize("which", ["header", "payload"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="BOM"),
        pytest.param(lambda text: text + b"x", id="trailing data"),
        pytest.param(lambda text: text + text, id="two objects"),
        pytest.param(lambda text: text[:-1] + b',"a":"\xff"}', id="not UTF-8"),
        pytest.param(lambda text: text[:-1] + b',"a":NaN}', id="NaN"),
        pytest.param(lambda text: text[:-1] + b",}", id="trailing comma"),
        pytest.param(lambda text: b"[" + text + b"]", id="array"),
        pytest.param(lambda text: b"[" * 2000 + text + b"]" * 2000, id="deep array"),
        pytest.param(lambda text: text[:-1] + b',"a":' + b"[" * 900 + b"]" * 900 + b"}", id="deep"),
        pytest.param(lambda text: text.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(lambda text: b"null", id="null"),
        pytest.param(lambda text: b'"text"', id="text"),
        pytest.param(lambda text: b" ", id="blank"),
        pytest.param(lambda text: text.replace(b'"', b"'"), id="single quotes"),
    ],
)  # fmt: skip
def test_a181_what_is_not_one_strict_json_object_is_malformed(which: str, change: object) -> None:
    assert callable(change)
    header, payload = _HEADER_TEXT.encode(), _PAYLOAD_TEXT.encode()
    if which == "header":
        header = change(header)
    else:
        payload = change(payload)
    assert read(sign(header, payload)) is JwtRefusal.MALFORMED


@pytest.mark.parametrize("name", [*PAYLOAD, "other"])
def test_a181_a_claim_named_twice_is_malformed(name: str) -> None:
    twice = json.dumps({name: PAYLOAD.get(name)})[1:-1]
    payload = f"{_PAYLOAD_TEXT[:-1]}, {twice}, {twice}}}"
    assert read(sign(_HEADER_TEXT.encode(), payload.encode())) is JwtRefusal.MALFORMED


@pytest.mark.parametrize("twice", ['"kid": "k1"', '"alg": "EdDSA"', '"typ": "at+jwt"'])
def test_a181_a_header_member_named_twice_is_malformed(twice: str) -> None:
    header = f"{_HEADER_TEXT[:-1]}, {twice}}}"
    assert read(sign(header.encode(), _PAYLOAD_TEXT.encode())) is JwtRefusal.MALFORMED


@pytest.mark.parametrize("nested", ["[" * 31 + "]" * 31, '{"a":' * 31 + "0" + "}" * 31])
def test_a181_32_openings_are_the_most(nested: str) -> None:
    whole = f'{_PAYLOAD_TEXT[:-1]}, "a": {nested}}}'
    assert read(sign(_HEADER_TEXT.encode(), whole.encode())) == CLAIMS
    deeper = f'{_PAYLOAD_TEXT[:-1]}, "a": {nested}, "b": []}}'
    assert read(sign(_HEADER_TEXT.encode(), deeper.encode())) is JwtRefusal.MALFORMED


def test_a181_a_nested_member_named_twice_is_malformed() -> None:
    payload = f'{_PAYLOAD_TEXT[:-1]}, "a": {{"b": 1, "b": 1}}}}'
    assert read(sign(_HEADER_TEXT.encode(), payload.encode())) is JwtRefusal.MALFORMED


def test_a183_a_long_token_is_malformed() -> None:
    token = token_of(payload=changed(PAYLOAD, other="x" * 64_000))
    assert read(token) is JwtRefusal.MALFORMED


def test_a183_the_longest_token_is_8_kb() -> None:
    longest = max(
        (token_of(payload=changed(PAYLOAD, other="x" * size)) for size in range(5600, 5800)),
        key=lambda token: (len(token) <= jwt.MAX_LENGTH, len(token)),
    )
    assert jwt.MAX_LENGTH - 2 < len(longest) <= jwt.MAX_LENGTH
    assert read(longest) == CLAIMS


@given(st.text() | st.binary() | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
@example(b"\xff.\xff.\xff")
@example("\ud800")
def test_any_input_gives_a_refusal(token: str | bytes) -> None:
    assert isinstance(read(token), JwtRefusal)


_JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*sorted(HEADER), "crit", "x"]), _JSON_VALUES)
def test_any_header_value_gives_a_value(name: str, value: object) -> None:
    outcome = read(token_of(changed(HEADER, **{name: value})))
    assert isinstance(outcome, JwtRefusal) or HEADER.get(name) == value


@given(st.sampled_from(sorted(PAYLOAD)), _JSON_VALUES)
def test_any_claim_value_gives_a_value(name: str, value: object) -> None:
    outcome = read(token_of(payload=changed(PAYLOAD, **{name: value})))
    assert isinstance(outcome, JwtRefusal) or getattr(outcome, name) == value


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_signed_bytes_give_a_refusal(header: bytes, payload: bytes) -> None:
    assert isinstance(read(sign(header, payload)), JwtRefusal)
    assert isinstance(read(sign(_HEADER_TEXT.encode(), payload)), JwtRefusal)


# ------------------------------------------------------------------------------ keys and rotation


def test_a185_the_jwks_has_public_members_only() -> None:
    other = jwt.generate("k2", NOW_MS)
    published = jwt.jwks([other, KEY])["keys"]
    assert [each["kid"] for each in published] == ["k2", "k1"]
    for each in published:
        assert set(each) == {"kty", "crv", "x", "kid", "use", "alg"}
        assert (each["kty"], each["crv"], each["use"], each["alg"]) == (
            "OKP",
            "Ed25519",
            "sig",
            "EdDSA",
        )
        assert len(decode(each["x"])) == 32
    assert jwt.JWKS_MAX_AGE_SECONDS * 1000 < jwt.AHEAD_MS


def test_a_key_shows_nothing_of_its_secret() -> None:
    secret = json.loads(KEY.to_jwk(private=True))["d"]
    assert secret not in repr(KEY)
    assert secret not in str(KEY)
    assert "d" not in json.loads(KEY.to_jwk(private=False))


def test_a_key_is_read_back_from_its_jwk() -> None:
    text = KEY.to_jwk(private=True)
    again = SigningKey.from_jwk(text, created_at=1, activates_at=2, retires_at=3)
    assert (again.kid, again.created_at, again.activates_at, again.retires_at) == ("k1", 1, 2, 3)
    assert jwt.issue(again, CLAIMS) == TOKEN


def test_keys_are_made_of_fresh_randomness() -> None:
    keys = [jwt.generate("k", NOW_MS) for _ in range(8)]
    assert len({key.to_jwk(private=True) for key in keys}) == 8


_JWK = json.loads(KEY.to_jwk(private=True))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps(without(_JWK, "kid")),
        json.dumps(without(_JWK, "x")),
        json.dumps(changed(_JWK, kty="EC")),
        json.dumps(changed(_JWK, crv="Ed448")),
        json.dumps(changed(_JWK, d="AAAA")),
        json.dumps(changed(_JWK, d="=")),
        json.dumps(changed(_JWK, d=5)),
        json.dumps(changed(without(_JWK, "d"), x="AAAA")),
        json.dumps(changed(_JWK, x=encode(bytes(32)))),
        json.dumps(changed(_JWK, x=_JWK["x"] + "=")),
    ],
)
def test_a_broken_jwk_is_refused_without_its_secret(text: str) -> None:
    with pytest.raises(Misuse) as caught:
        SigningKey.from_jwk(text, created_at=0, activates_at=0)
    assert _JWK["d"] not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


TTL = 300_000
DAY = 86_400_000


def test_the_first_key_signs_at_once_and_the_next_only_when_known() -> None:
    first = jwt.generate("a", NOW_MS, first=True)
    second = jwt.generate("b", NOW_MS)
    assert jwt.current([], NOW_MS) is None
    assert jwt.current([first, second], NOW_MS) is first
    assert jwt.current([second], NOW_MS) is None
    assert jwt.current([first, second], second.activates_at - 1) is first
    assert jwt.current([first, second], second.activates_at) is second
    assert jwt.publishable([first, second], NOW_MS) == (second, first)


def test_a_key_retires_after_the_last_token_it_signed() -> None:
    first = jwt.generate("a", NOW_MS, first=True)
    second = jwt.generate("b", NOW_MS)
    ended = jwt.succeeded(first, second, token_ttl_ms=TTL)
    assert ended.retires_at == second.activates_at + TTL + jwt.OVERLAP_MS
    assert jwt.publishable([ended, second], ended.retires_at - 1) == (second, ended)
    assert jwt.publishable([ended, second], ended.retires_at) == (second,)
    third = jwt.generate("c", NOW_MS + DAY)
    assert jwt.succeeded(ended, third, token_ttl_ms=TTL) is ended


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0, False), (DAY - jwt.AHEAD_MS - 1, False), (DAY - jwt.AHEAD_MS, True), (3 * DAY, True)],
)
def test_a_successor_is_due_before_the_interval_ends(age: int, expected: bool) -> None:
    assert jwt.due([jwt.generate("a", NOW_MS, first=True)], NOW_MS + age, DAY) is expected


def test_a_key_is_due_where_none_is_live() -> None:
    retired = msgspec.structs.replace(KEY, retires_at=NOW_MS)
    assert jwt.due([], NOW_MS, DAY)
    assert jwt.due([retired], NOW_MS, DAY)
    assert jwt.current([retired], NOW_MS) is None


@given(st.lists(st.integers(60_000, 2 * DAY), min_size=1, max_size=60))
def test_a186_a_life_of_rotations_never_refuses_a_live_token(steps: list[int]) -> None:
    keys: list[SigningKey] = []
    seen_by_verifiers: dict[str, int] = {}
    signed: list[tuple[int, str]] = []
    now = NOW_MS
    for step in steps:
        if jwt.due(keys, now, DAY):
            made = jwt.generate(f"k{now}", now, first=jwt.current(keys, now) is None)
            keys = [*(jwt.succeeded(key, made, token_ttl_ms=TTL) for key in keys), made]
        for key in jwt.publishable(keys, now):
            seen_by_verifiers.setdefault(key.kid, now)
        signer = jwt.current(keys, now)
        assert signer is not None
        # Published for two max-ages before it signs, the very first key apart.
        known_for = now - seen_by_verifiers[signer.kid]
        assert known_for >= jwt.AHEAD_MS or signer is keys[0]
        signed.append((now, signer.kid))
        now += step
        published = {key.kid for key in jwt.publishable(keys, now)}
        assert all(kid in published for at, kid in signed if at + TTL > now)


# ------------------------------------------------------------------------------------ the seal

NEW, OLD = b"n" * 32, b"o" * 32


def test_a_sealed_key_is_opened_by_its_secret() -> None:
    text = KEY.to_jwk(private=True)
    sealed = jwt.seal(NEW, text)
    assert jwt.unseal([NEW], sealed) == text
    assert jwt.seal(NEW, text) == sealed
    assert _JWK["d"] not in sealed


def test_a_seal_of_an_earlier_version_is_opened() -> None:
    # As it stands in databases: how it is derived must never change.
    sealed = "1.oGXa0cbT.xgMVWCcRKrEA5eavrnghtHPSXyO0dVsZcUc-1LRkZc8"
    assert jwt.seal(NEW, "text") == sealed
    assert jwt.unseal([NEW], sealed) == "text"


def test_a_secret_that_was_rotated_still_opens() -> None:
    sealed = jwt.seal(OLD, "text")
    assert jwt.unseal([NEW, OLD], sealed) == "text"
    assert jwt.unseal([OLD, NEW], jwt.seal(NEW, "text")) == "text"
    with pytest.raises(SealBroken, match="SECRET"):
        jwt.unseal([NEW], sealed)
    with pytest.raises(SealBroken, match="SECRET"):
        jwt.unseal([], sealed)


def test_whatever_a_seal_ends_with_it_is_opened() -> None:
    texts = [f"{number:02}" for number in range(100)]
    sealed = [jwt.seal(NEW, text) for text in texts]
    assert any(seal.endswith("X") for seal in sealed), "no letter is taken for padding"
    assert [jwt.unseal([NEW], seal) for seal in sealed] == texts


def test_two_texts_never_share_a_nonce() -> None:
    boxes = [decode(jwt.seal(NEW, f"text {number}").split(".")[2]) for number in range(50)]
    assert len({box[:12] for box in boxes}) == 50


def test_each_bit_of_a_seal_counts() -> None:
    sealed = jwt.seal(NEW, "text").encode()
    for bit in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            jwt.unseal([NEW], flipped.decode("latin-1"))


@given(st.text() | st.text().map(lambda tail: jwt.seal(NEW, "x")[:14] + tail))
def test_any_text_opens_nothing(sealed: str) -> None:
    with pytest.raises(SealBroken):
        jwt.unseal([NEW], sealed)
