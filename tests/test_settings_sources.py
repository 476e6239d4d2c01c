"""Where settings come from, what they say to each other, and that none shows a secret."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.durations import parse_duration
from keybearer.domain.errors import Misuse
from keybearer.settings import ALIASES, PREFIX, Settings, load
from keybearer.settingvalues import PARSERS
from tests.people import SECRET
from tests.test_settings import ALIAS, refusal


def wrote(folder: Path, text: str) -> Path:
    file = folder / ".env"
    file.write_text(text)
    return file


# --- the other name -------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "on"), [("true", True), ("1", True), ("false", False)])
def test_the_other_name_of_token_management_is_read(text: str, on: bool) -> None:
    assert load(environ={ALIAS: text}).token_management is on


def test_the_own_name_wins_over_the_other() -> None:
    for own, other in (("true", "false"), ("false", "true")):
        environ = {"KEYBEARER_TOKEN_MANAGEMENT": own, ALIAS: other}
        assert load(environ=environ).token_management is (own == "true")
        assert load(environ=dict(reversed(environ.items()))) == load(environ=environ)


def test_a_bad_value_under_the_other_name_is_told_by_that_name() -> None:
    assert refusal({ALIAS: "maybe"}).startswith(ALIAS)
    assert {*ALIASES} == {ALIAS}


# --- .env -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "prefix"),
    [
        ("KEYBEARER_KEY_PREFIX=acme_", "acme_"),
        ("KEYBEARER_KEY_PREFIX = acme_", "acme_"),
        ("export KEYBEARER_KEY_PREFIX=acme_", "acme_"),
        ('KEYBEARER_KEY_PREFIX="acme_"', "acme_"),
        ("KEYBEARER_KEY_PREFIX='acme_'", "acme_"),
        ("KEYBEARER_KEY_PREFIX=acme_ # new keys", "acme_"),
        ("KEYBEARER_KEY_PREFIX='acme_' # new keys", "acme_"),
        ("# KEYBEARER_KEY_PREFIX=acme_", "kb_"),
        ("\n\n#\nKEYBEARER_KEY_PREFIX=acme_\r\n", "acme_"),
        ("KEYBEARER_KEY_PREFIX=old_\nKEYBEARER_KEY_PREFIX=acme_", "acme_"),
        ("PATH=/nowhere\nKEYBEARER_KEY_PREFIX=acme_", "acme_"),
        ("if true\nKEYBEARER_KEY_PREFIX=acme_", "acme_"),
        ('HOST="1\nKEYBEARER_KEY_PREFIX=acme_', "acme_"),
        ("", "kb_"),
    ],
)
def test_a_line_of_the_file_is_a_setting(tmp_path: Path, line: str, prefix: str) -> None:
    assert load(environ={}, dotenv=wrote(tmp_path, line)).key_prefix == (prefix,)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("KEYBEARER_KEY_CREATION: nobody", 1),
        ("HOST=1\nKEYBEARER_TOKEN_MANAGEMENT true", 2),
        ("\n# ours\n\n  KEYBEARER_KEY_PREFIX", 4),
        ("HOST=1\r\nexport KEYBEARER_KEY_PREFIX\r\n", 2),
        ('KEYBEARER_KEY_CREATION="nobody', 1),
        ("KEYBEARER_KEY_CREATION='nobody", 1),
        ("KEYBEARER_KEY_CREATION='nobody'!", 1),
        ('HOST="1\nKEYBEARER_PORT=80\nNAME="a"', 1),
        ("keybearer_key_creation nobody", 1),
        (f"\n{ALIAS}: true", 2),
        (ALIAS, 1),
        (f"KEYBEARER_SECRET:{SECRET}=", 1),
    ],
)
def test_a_broken_line_that_names_us_is_told_and_not_shown(
    tmp_path: Path, text: str, line: int
) -> None:
    with pytest.raises(Misuse) as caught:
        load(environ={}, dotenv=wrote(tmp_path, text))
    assert str(caught.value) == f"{tmp_path}/.env line {line}: takes NAME=value"


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"HOST=1\nKEYBEARER_KEY_PREFIX=caf\xe9_\n")
    with pytest.raises(Misuse, match=r"\.env line 2: is not UTF-8$"):
        load(environ={}, dotenv=file)
    file.unlink()
    file.mkdir()
    with pytest.raises(Misuse, match=r"\.env cannot be read \(Is a directory\)$"):
        load(environ={}, dotenv=file)


def test_a_name_in_small_letters_is_told(tmp_path: Path) -> None:
    for name in ("keybearer_key_creation", "Keybearer_Key_Creation", "KEYBEARER_key_creation"):
        told = f"^{name} is not a setting: write KEYBEARER_KEY_CREATION$"
        with pytest.raises(Misuse, match=told):
            load(environ={name: "nobody"})
        with pytest.raises(Misuse, match=told):
            load(environ={}, dotenv=wrote(tmp_path, f"{name}=nobody"))
    assert "listed in docs/settings.md" in refusal({"keybearer_key_prefixes": "kb_"})


def test_nothing_is_put_into_a_value(tmp_path: Path) -> None:
    url = "smtp://ada:pa$HOME${HOME}@mail.example.com"
    file = wrote(tmp_path, f"KEYBEARER_SMTP_URL='{url}'")
    assert load(environ={"HOME": "/root"}, dotenv=file).smtp_url == url


def test_the_file_may_be_missing(tmp_path: Path) -> None:
    assert load(environ={}, dotenv=tmp_path / ".env") == load(environ={})


def test_what_is_wrong_in_the_file_is_told_by_its_name(tmp_path: Path) -> None:
    for line, told in (
        ("KEYBEARER_PORT=http", "KEYBEARER_PORT 'http'"),
        ("KEYBEARER_PRT=1", "KEYBEARER_PRT is not a setting"),
        (f"{ALIAS}=maybe", ALIAS),
    ):
        with pytest.raises(Misuse, match=told):
            load(environ={}, dotenv=wrote(tmp_path, line))


def test_keyword_environment_file_default_in_this_order(tmp_path: Path) -> None:
    file = wrote(tmp_path, "KEYBEARER_PORT=7001\nKEYBEARER_CACHE_SIZE=7\nKEYBEARER_HOST=::1")
    environ = {"KEYBEARER_PORT": "7002", "KEYBEARER_CACHE_SIZE": "8"}
    settings = load({"port": 7003}, environ=environ, dotenv=file)
    assert (settings.port, settings.cache_size, settings.host) == (7003, 8, "::1")
    assert settings.password_min_length == 15


def test_a_keyword_that_is_none_leaves_the_environment(tmp_path: Path) -> None:
    assert load({"port": None}, environ={"KEYBEARER_PORT": "7002"}).port == 7002


def test_the_processs_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYBEARER_PORT", "7002")
    assert load().port == 7002


# --- settings that do not go together -------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"DATABASE_URL": "postgresql://h/d"}, "KEYBEARER_SECRET is required with PostgreSQL"),
        (
            {"DATABASE_URL": "postgresql://h/d", "SECRET": ""},
            "KEYBEARER_SECRET is required with PostgreSQL",
        ),
        (
            {"KEY_DEFAULT_LIFETIME": "91d", "KEY_MAX_LIFETIME": "90d"},
            "KEYBEARER_KEY_DEFAULT_LIFETIME is longer than KEYBEARER_KEY_MAX_LIFETIME",
        ),
        (
            {"REFRESH_TOKEN_TTL": "91d"},
            "KEYBEARER_REFRESH_TOKEN_TTL is longer than KEYBEARER_REFRESH_ABSOLUTE_TTL",
        ),
        (
            {"SESSION_IDLE_TTL": "8d"},
            "KEYBEARER_SESSION_IDLE_TTL is longer than KEYBEARER_SESSION_TTL",
        ),
        (
            {"SESSION_TTL": "1h", "STEP_UP_AFTER": "61m"},
            "KEYBEARER_STEP_UP_AFTER is longer than KEYBEARER_SESSION_TTL",
        ),
        ({"WORKERS": "2"}, "KEYBEARER_WORKERS above 1 needs KEYBEARER_REDIS_URL"),
    ],
)
def test_settings_that_contradict_each_other_are_told(environ: dict[str, str], told: str) -> None:
    assert refusal({PREFIX + name: text for name, text in environ.items()}).startswith(told)


def test_equal_bounds_are_no_contradiction() -> None:
    settings = load({"key_default_lifetime": "30d", "key_max_lifetime": "30d"}, environ={})
    assert settings.key_default_lifetime == settings.key_max_lifetime
    assert load({"session_ttl": "1d", "session_idle_ttl": "24h"}, environ={}).session_ttl
    assert load({"refresh_token_ttl": "90d"}, environ={}).refresh_token_ttl
    assert load({"session_ttl": "1h", "step_up_after": "60m"}, environ={}).step_up_after
    assert load({"session_ttl": "1h", "step_up_after": "off"}, environ={}).step_up_after is None


@pytest.mark.parametrize(
    ("shorter", "longer", "set_to"),
    [
        ("key_default_lifetime", "key_max_lifetime", "30d"),
        ("refresh_token_ttl", "refresh_absolute_ttl", "7d"),
        ("session_idle_ttl", "session_ttl", "12h"),
        ("step_up_after", "session_ttl", "5m"),
    ],
)
def test_what_is_not_set_follows_the_longest_that_is(
    shorter: str, longer: str, set_to: str
) -> None:
    for settings in (
        load({longer: set_to}, environ={}),
        load({}, environ={PREFIX + longer.upper(): set_to}),
    ):
        assert getattr(settings, shorter) == getattr(settings, longer) == parse_duration(set_to)
    untouched = getattr(load({}, environ={}), shorter)
    assert getattr(load({longer: "3650d"}, environ={}), shorter) == untouched


# --- secrets --------------------------------------------------------------------------------

HIDDEN = "Tr0ub4dor-and-3-horses-and-a-staple"


def test_a_repr_shows_no_secret() -> None:
    settings = load(
        {
            "database_url": f"postgresql://ada:{HIDDEN}@db.example.com/app",
            "redis_url": f"redis://:{HIDDEN}@cache.example.com",
            "smtp_url": f"smtp://ada:{HIDDEN}@mail.example.com",
            "secret": HIDDEN,
        },
        environ={},
    )
    for shown in (repr(settings), str(settings), f"{settings}", f"{[settings]}"):
        assert HIDDEN not in shown
        assert "postgresql" in shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_URL", f"postgresql://ada:{HIDDEN}@db.example.com:port/app"),
        ("DATABASE_URL", f"postgresql://ada:{HIDDEN}\u2100@db.example.com/app"),
        ("DATABASE_URL", f"mysql://ada:{HIDDEN}@db.example.com/app"),
        ("REDIS_URL", f"redis://:{HIDDEN}\u2100@cache.example.com"),
        ("REDIS_URL", f"http://:{HIDDEN}@cache.example.com"),
        ("REDIS_URL", f"redis://:{HIDDEN}/1@cache.example.com"),
        ("REDIS_URL", f"redis+cluster://:{HIDDEN}@a:1,b:{HIDDEN}"),
        ("REDIS_URL", f"redis+sentinel://a?sentinel_password={HIDDEN}"),
        ("SMTP_URL", f"smtp://ada:{HIDDEN}@[mail.example.com"),
        ("SMTP_URL", f"smtp://ada:{HIDDEN}\u2100@mail.example.com"),
        ("BASE_URL", f"https://ada:{HIDDEN}@auth.example.com"),
        ("SECRET", f"{HIDDEN},short-{HIDDEN[:20]}"),
        ("SERVICE_TOKENS", f"kbs_{HIDDEN}"),
    ],
)
def test_a_refusal_shows_no_secret(name: str, text: str) -> None:
    said = refusal({PREFIX + name: text})
    assert said.startswith(PREFIX + name)
    assert HIDDEN[:12] not in said


# --- anything else --------------------------------------------------------------------------

_PIECES = st.sampled_from(
    ["https://", "http://localhost", "sqlite:///", "postgresql://", "smtp://", "redis://", "@", ":",
     "[", "]", "::1", "%", "/", "?", "#", ",", "kb_", "90d", "1000/1m", "files:read", "\u2100",
     "\0", "\n", "\u2028", "\udc80", "9" * 5000, "0x10", "²", "en", SECRET]
)  # fmt: skip
_TEXT = st.text(max_size=30) | st.lists(_PIECES | st.text(max_size=5), max_size=6).map("".join)


def outcome(environ: dict[str, str], **keywords: str) -> Settings | str:
    """The settings, or what was said instead."""
    try:
        return load(keywords, environ=environ)
    except Misuse as misuse:
        return str(misuse)


@given(name=st.sampled_from(sorted(PARSERS)), text=_TEXT)
def test_any_text_is_a_setting_or_one_line(name: str, text: str) -> None:
    found = outcome({PREFIX + name.upper(): text})
    if isinstance(found, str):
        assert found.startswith(PREFIX)
        assert len(found.splitlines()) == 1
    else:
        assert SECRET not in repr(found)


@given(texts=st.dictionaries(st.sampled_from(sorted(PARSERS)), _TEXT, max_size=4))
def test_any_texts_together_are_settings_or_one_line(texts: dict[str, str]) -> None:
    found = outcome({}, **texts)
    assert isinstance(found, Settings) or len(found.splitlines()) == 1


@given(name=st.text(max_size=20), text=st.text(max_size=5))
def test_any_name_is_a_setting_or_one_line(name: str, text: str) -> None:
    found = outcome({PREFIX + name: text})
    assert isinstance(found, Settings) or len(found.splitlines()) == 1
