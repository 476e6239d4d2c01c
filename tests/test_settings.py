"""Every setting: its default, what it takes, what it refuses, and where it is read."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from keybearer.domain.errors import Misuse
from keybearer.domain.model import RateLimit
from keybearer.domain.networks import AllowList
from keybearer.settings import PREFIX, Settings, load
from keybearer.settingvalues import DAY_MS, PARSERS
from tests.people import SECRET

OTHER = "tests-only-older-Hq3kP9sV0aJ6uE4x"
HASH = "0123456789abcdef" * 4
ALIAS = "NEXT_PUBLIC_BETTER_AUTH_TOKEN_MANAGEMENT"
ROOT = Path(__file__).parent.parent

DEFAULTS: dict[str, object] = {
    "token_management": False,
    "database_url": "sqlite:///keybearer.db",
    "redis_url": None,
    "secret": (),
    "base_url": "http://127.0.0.1:8000",
    "smtp_url": None,
    "keyshield_pepper": None,
    "mail_from": None,
    "require_email_verification": True,
    "key_prefix": ("kb_",),
    "key_creation": "everyone",
    "key_max_lifetime": 365 * DAY_MS,
    "key_default_lifetime": 90 * DAY_MS,
    "key_allow_no_expiry": True,
    "key_rate_limit": RateLimit(maximum=1000, window_ms=60_000),
    "max_keys_per_owner": 100,
    "permissions": frozenset(),
    "user_permissions": None,
    "access_token_ttl": 300_000,
    "refresh_token_ttl": 30 * DAY_MS,
    "refresh_absolute_ttl": 90 * DAY_MS,
    "session_ttl": 7 * DAY_MS,
    "session_idle_ttl": DAY_MS,
    "step_up_after": 900_000,
    "password_min_length": 15,
    "locales": ("en", "de", "fr", "es", "pt-BR", "ja", "zh-CN", "ar"),
    "trusted_proxies": None,
    "trusted_origins": (),
    "service_tokens": (),
    "signing_key_rotation": 90 * DAY_MS,
    "key_retention": 90 * DAY_MS,
    "cache_size": 100_000,
    "cache_mb": 256,
    "stale_if_database_lost": 0,
    "metrics_dir": None,
    "spill_dir": None,
    "spill_mb": 64,
    "host": "127.0.0.1",
    "port": 8000,
    "workers": 1,
}

GOOD: list[tuple[str, str, object]] = [
    *(("TOKEN_MANAGEMENT", text, True) for text in ("true", "1", "yes", "on", "TRUE")),
    *(("TOKEN_MANAGEMENT", text, False) for text in ("false", "0", "no", "off", "False", "")),
    ("DATABASE_URL", "sqlite:///app.db", "sqlite:///app.db"),
    ("DATABASE_URL", "sqlite:////var/lib/app.db", "sqlite:////var/lib/app.db"),
    ("KEYSHIELD_PEPPER", "salt and pepper", "salt and pepper"),
    ("REDIS_URL", "redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
    ("REDIS_URL", "rediss://cache.example.com", "rediss://cache.example.com"),
    ("REDIS_URL", "redis+sentinel://a,b:26380/keys", "redis+sentinel://a,b:26380/keys"),
    ("REDIS_URL", "rediss+cluster://a:6379,b:6379", "rediss+cluster://a:6379,b:6379"),
    ("SECRET", SECRET, (SECRET,)),
    ("SECRET", f"{SECRET},{OTHER}", (SECRET, OTHER)),
    ("SECRET", f" {SECRET} , {OTHER} ", (SECRET, OTHER)),
    ("SECRET", "", ()),
    ("BASE_URL", "https://auth.example.com", "https://auth.example.com"),
    ("BASE_URL", "https://auth.example.com/", "https://auth.example.com"),
    ("BASE_URL", "https://example.com/auth/", "https://example.com/auth"),
    ("BASE_URL", "http://localhost:3000", "http://localhost:3000"),
    ("BASE_URL", "http://[::1]:3000", "http://[::1]:3000"),
    ("SMTP_URL", "smtps://u:p%40ss@mail.example.com:465", "smtps://u:p%40ss@mail.example.com:465"),
    ("SMTP_URL", "smtp://127.0.0.1:1025", "smtp://127.0.0.1:1025"),
    ("MAIL_FROM", "keys@example.com", "keys@example.com"),
    ("REQUIRE_EMAIL_VERIFICATION", "false", False),
    ("KEY_PREFIX", "acme_", ("acme_",)),
    ("KEY_PREFIX", "kb_live_, kb_test_", ("kb_live_", "kb_test_")),
    ("KEY_PREFIX", "_", ("_",)),
    ("KEY_PREFIX", "a23456789012345_", ("a23456789012345_",)),
    *(("KEY_CREATION", text, text) for text in ("everyone", "admins", "nobody")),
    ("KEY_MAX_LIFETIME", "3650d", 3650 * DAY_MS),
    ("KEY_DEFAULT_LIFETIME", "1s", 1000),
    ("KEY_ALLOW_NO_EXPIRY", "no", False),
    ("KEY_RATE_LIMIT", "off", None),
    ("KEY_RATE_LIMIT", "0/1h", RateLimit(maximum=0, window_ms=3_600_000)),
    ("MAX_KEYS_PER_OWNER", "1", 1),
    ("MAX_KEYS_PER_OWNER", "100000", 100_000),
    ("PERMISSIONS", "files:read, files:write", frozenset({"files:read", "files:write"})),
    ("PERMISSIONS", "", frozenset()),
    ("USER_PERMISSIONS", "", frozenset()),
    ("USER_PERMISSIONS", "files:read", frozenset({"files:read"})),
    ("ACCESS_TOKEN_TTL", "1h", 3_600_000),
    ("REFRESH_TOKEN_TTL", "2w", 14 * DAY_MS),
    ("REFRESH_ABSOLUTE_TTL", "365d", 365 * DAY_MS),
    ("SESSION_TTL", "30d", 30 * DAY_MS),
    ("SESSION_IDLE_TTL", "15m", 900_000),
    ("STEP_UP_AFTER", "1m", 60_000),
    ("STEP_UP_AFTER", "7d", 7 * DAY_MS),
    ("STEP_UP_AFTER", "off", None),
    ("PASSWORD_MIN_LENGTH", "8", 8),
    ("PASSWORD_MIN_LENGTH", "64", 64),
    ("LOCALES", "de", ("de",)),
    ("LOCALES", "pt-BR, en", ("pt-BR", "en")),
    ("TRUSTED_ORIGINS", "", ()),
    ("TRUSTED_ORIGINS", "https://app.example.com", ("https://app.example.com",)),
    (
        "TRUSTED_ORIGINS",
        "http://localhost:3000,https://app.example.com:8443",
        ("http://localhost:3000", "https://app.example.com:8443"),
    ),
    ("SERVICE_TOKENS", f"{HASH},{HASH[::-1]}", (HASH, HASH[::-1])),
    ("SIGNING_KEY_ROTATION", "1h", 3_600_000),
    ("KEY_RETENTION", "1d", DAY_MS),
    ("CACHE_SIZE", "1", 1),
    ("CACHE_MB", "64", 64),
    ("SPILL_DIR", "/var/lib/key bearer", "/var/lib/key bearer"),
    ("SPILL_MB", "1", 1),
    ("HOST", "0.0.0.0", "0.0.0.0"),  # noqa: S104 -- whoever says so means it
    ("HOST", "::1", "::1"),
    ("PORT", "0", 0),
    ("PORT", "65535", 65_535),
    ("WORKERS", "1", 1),
    ("STALE_IF_DATABASE_LOST", "5m", 300_000),
    ("STALE_IF_DATABASE_LOST", "off", 0),
    ("METRICS_DIR", "/run/keybearer", "/run/keybearer"),
]

# fmt: off
BAD: list[tuple[str, list[str]]] = [
    ("TOKEN_MANAGEMENT", ["maybe", "2", " true", "truе"]),  # noqa: RUF001 -- a Cyrillic letter
    (
        "DATABASE_URL",
        [
            "",
            "app.db",
            "sqlite://app.db",
            "sqlite:///",
            "mysql://h/d",
            "postgresql:///d",
            "postgresql+asyncpg://h/d",
            "postgresql://h:port/d",
            "postgresql://h:99999/d",
            "postgresql://[h/d",
            "sqlite:///:memory:",
            "sqlite:///app.db?mode=ro",
            "sqlite:///a\0b",
            "sqlite:///a\nb",
        ],
    ),
    ("REDIS_URL", ["", "127.0.0.1:6379", "http://h", "redis:", "redis://", "redis+cluster://h/1"]),
    ("SECRET", ["short", "a" * 64, "ab" * 32, f"{SECRET},short", SECRET + "\udc80"]),
    (
        "BASE_URL",
        [
            "",
            "auth.example.com",
            "http://auth.example.com",
            "ftp://h",
            "https://",
            "https://:8000",
            "https://h?x=1",
            "https://h#x",
            "https://h:port",
            "https://h:99999",
            "https://u:p@h",
            "https://a\nb.example.com",
            "https://a b",
            "https://[::1",
            "https://h/a\r\nb: c",
            "https://bücher.example",
            "http://localhost.example.com",
            "https://h\\@evil.example",
        ],
    ),
    (
        "SMTP_URL",
        [
            "",
            "mail.example.com",
            "http://h",
            "smtp://",
            "smtp://h:port",
            "smtp://h:99999",
            "smtp://[h",
            "smtp://u:p@h\n",
        ],
    ),
    (
        "MAIL_FROM",
        ["", "nobody", "a@example.com, b@example.com", "a@example.com\nBcc: b@c.example"],
    ),
    ("REQUIRE_EMAIL_VERIFICATION", ["", "never"]),
    (
        "KEY_PREFIX",
        ["", ",", "kb", "Kb_", "kb-_", "a234567890123456_", "kbs_", "kb_,kbr_", "kbc_", "ключ_"],
    ),
    ("KEY_CREATION", ["", "Everyone", "admin"]),
    *(
        (name, ["", "0s", "90", "-1d", "1.5h", "1y", "3651d", " 1d", "٣d", "9" * 5000 + "d"])
        for name in (
            "KEY_MAX_LIFETIME",
            "KEY_DEFAULT_LIFETIME",
            "REFRESH_TOKEN_TTL",
            "REFRESH_ABSOLUTE_TTL",
            "SESSION_TTL",
            "SESSION_IDLE_TTL",
        )
    ),
    ("KEY_ALLOW_NO_EXPIRY", ["", "perhaps"]),
    ("KEY_RATE_LIMIT", ["", "1000", "1000/", "/1m", "-1/1m", "1e3/1m", "OFF", "1/0s"]),
    ("MAX_KEYS_PER_OWNER", ["", "0", "100001", "-1", "1.0", "1_0", "٣", "9" * 5000]),
    ("PERMISSIONS", ["files", "files:*", "*:*", "files:read;files:write", "Files:read", ","]),
    ("USER_PERMISSIONS", ["files", "files:"]),
    ("ACCESS_TOKEN_TTL", ["", "61m", "1d", "0s"]),
    ("STEP_UP_AFTER", ["", "59s", "0", "0s", "OFF", "never", "3651d", "15"]),
    ("PASSWORD_MIN_LENGTH", ["", "7", "65", "eight"]),
    ("LOCALES", ["", ",", "english", "../etc", "en_US", "xx", "en,xx", "pt", "PT-BR", "en,de,en"]),
    ("TRUSTED_PROXIES", ["*", "0.0.0.0/0", "::/0", "proxy.example.com", "10.0.0.1/8"]),
    (
        "TRUSTED_ORIGINS",
        [
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://[",
            "https://App.example.com",
            "https://app.example.com:443",
            "http://localhost:80",
            "https://u@app.example.com",
            "https://h:99999",
            "https://h:port",
            "HTTPS://h",
            "https://*.example.com",
            "https://bücher.example",
            "ftp://h",
        ],
    ),
    ("SERVICE_TOKENS", ["kbs_raw", HASH.upper(), HASH[1:], f"{HASH},x"]),
    ("SIGNING_KEY_ROTATION", ["", "59m", "3651d"]),
    ("KEY_RETENTION", ["", "23h"]),
    ("CACHE_SIZE", ["", "0", "10000001"]),
    ("CACHE_MB", ["", "0", "65537", "256M"]),
    ("KEYSHIELD_PEPPER", ["", "two\nlines"]),
    ("METRICS_DIR", ["", "a\nb"]),
    ("SPILL_DIR", ["", "a\nb"]),
    ("SPILL_MB", ["", "0", "65537", "64M"]),
    ("HOST", ["", "a b", "h\n", "http://h"]),
    ("PORT", ["", "65536", "-1", "http"]),
    ("WORKERS", ["", "0", "257"]),
    ("STALE_IF_DATABASE_LOST", ["", "5", "0.5s", "2h", "on"]),
]
# fmt: on


def values(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def refusal(environ: Mapping[str, str] | None = None, /, **keywords: object) -> str:
    """The one line that a wrong setting is told by."""
    with pytest.raises(Misuse) as caught:
        load(keywords, environ=environ or {})
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert said.isprintable()
    return said


def test_every_setting_has_its_default() -> None:
    assert values(load(environ={})) == DEFAULTS
    assert set(PARSERS) == set(DEFAULTS) == set(Settings.__struct_fields__)


def test_every_default_is_the_documented_one() -> None:
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (\S+) \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE
    )
    assert {name.lower() for name, _ in rows} == set(DEFAULTS)
    for name, shown in rows:
        unset = shown == "none"
        settings = load(environ={} if unset else {PREFIX + name: shown.strip("`")})
        assert values(settings) == DEFAULTS, name
        assert unset == (DEFAULTS[name.lower()] in (None, (), frozenset())), name


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_good_value_is_taken(name: str, text: str, value: object) -> None:
    more = {"USER_PERMISSIONS": {"PERMISSIONS": "files:read"}}.get(name, {})
    environ = {PREFIX + key: each for key, each in {name: text, **more}.items()}
    assert getattr(load(environ=environ), name.lower()) == value
    assert getattr(load({name.lower(): text}, environ={}), name.lower()) == value


def test_every_setting_is_tried() -> None:
    assert {name.lower() for name, _, _ in GOOD} | {"trusted_proxies"} == set(DEFAULTS)
    assert {name.lower() for name, _ in BAD} == set(DEFAULTS)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD for text in texts])
def test_a_bad_value_is_told_by_its_name(name: str, text: str) -> None:
    said = refusal({PREFIX + name: text})
    assert said.startswith(PREFIX + name)
    assert "take" in said or "as in" in said or " is " in said or " are " in said
    keyword: dict[str, Any] = {name.lower(): text}
    assert refusal(**keyword).startswith(name.lower())


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_postgresql_has_one_spelling(scheme: str) -> None:
    url = f"{scheme}://ada:pw@db.example.com:5432/app"
    settings = load(environ={"KEYBEARER_DATABASE_URL": url, "KEYBEARER_SECRET": SECRET})
    assert settings.database_url == "postgresql://ada:pw@db.example.com:5432/app"
    assert settings.sqlite_path is None


def test_sqlite_has_a_path() -> None:
    assert load(environ={}).sqlite_path == "keybearer.db"
    assert load({"database_url": "sqlite:////a/b c.db"}, environ={}).sqlite_path == "/a/b c.db"


@pytest.mark.parametrize(
    ("text", "base_url", "origin", "secure"),
    [
        ("https://a.example", "https://a.example", "https://a.example", True),
        ("HTTPS://A.Example", "https://a.example", "https://a.example", True),
        ("https://a.example:443/", "https://a.example", "https://a.example", True),
        ("https://a.example:8443/Auth", "https://a.example:8443/Auth", "https://a.example:8443",
         True),
        ("http://localhost:80", "http://localhost", "http://localhost", False),
        ("http://LocalHost:8000", "http://localhost:8000", "http://localhost:8000", False),
    ],
)  # fmt: skip
def test_the_base_url_is_as_browsers_spell_it(
    text: str, base_url: str, origin: str, secure: bool
) -> None:
    settings = load({"base_url": text}, environ={})
    assert (settings.base_url, settings.origin, settings.secure) == (base_url, origin, secure)


def test_the_base_url_follows_the_port() -> None:
    assert load({"port": 9000}, environ={}).base_url == "http://127.0.0.1:9000"
    given_both = load({"port": 9000, "base_url": "https://a.example"}, environ={})
    assert given_both.base_url == "https://a.example"


def test_trusted_proxies_are_networks() -> None:
    proxies = load({"trusted_proxies": "10.0.0.0/8, 203.0.113.7"}, environ={}).trusted_proxies
    assert isinstance(proxies, AllowList)
    assert proxies.admits("10.1.2.3")
    assert not proxies.admits("203.0.113.8")


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("token_management", True, "true"),
        ("require_email_verification", False, "false"),
        ("port", 9000, "9000"),
        ("key_prefix", ["kb_live_", "kb_test_"], "kb_live_,kb_test_"),
        ("trusted_origins", ("https://a.example",), "https://a.example"),
        ("permissions", ["files:read"], "files:read"),
        ("locales", iter(["de", "en"]), "de,en"),
    ],
)
def test_a_keyword_may_be_a_python_value(name: str, value: Any, same: str) -> None:
    assert load({name: value}, environ={}) == load({name: same}, environ={})


@pytest.mark.parametrize("value", [object(), 1.5, b"bytes", {"files": ["read"]}, [None]])
def test_other_python_values_are_refused(value: object) -> None:
    assert refusal(permissions=value).startswith("permissions")
    assert refusal(token_management=value).startswith("token_management")


def test_none_is_not_given() -> None:
    assert load(dict.fromkeys(PARSERS), environ={}) == load(environ={})


@pytest.mark.parametrize("name", ["TOKEN_MANAGMENT", "", "DATABASE", "port", "Token_Management"])
def test_an_unknown_name_is_told(name: str) -> None:
    assert refusal({PREFIX + name: "1"}).startswith(f"{PREFIX}{name} is not a setting")


def test_an_unknown_keyword_is_told() -> None:
    assert refusal(token_managment=True).startswith("token_managment is not a setting")
    assert refusal(PORT=1).startswith("PORT is not a setting")


def test_other_variables_are_left_alone() -> None:
    environ = {"PATH": "/bin", "KEYBEARER_TOKEN": "x", "KEYBEARER_URL": "y", "KEYBEARERS": "z"}
    assert load(environ=environ) == load(environ={})
