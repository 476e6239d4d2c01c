"""Settings: environment, `.env` and keywords, checked once at the start.

Every setting is `KEYBEARER_<NAME>` in the environment and `<name>` as keyword of `Auth(...)`;
keywords win over the environment, the environment over `.env`. An unknown name or a bad value is
a `Misuse` whose one line names the variable and what it takes.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from keybearer import envfile
from keybearer.domain.credentials import guessable
from keybearer.domain.durations import parse_duration, parse_rate
from keybearer.domain.errors import Misuse
from keybearer.domain.model import RateLimit
from keybearer.domain.networks import AllowList, parse_trusted_proxies
from keybearer.domain.permissions import parse_catalogue
from keybearer.domain.redisurl import parse_redis_url

PREFIX = "KEYBEARER_"
ALIASES = {"NEXT_PUBLIC_BETTER_AUTH_TOKEN_MANAGEMENT": "TOKEN_MANAGEMENT"}
_OURS = re.compile("|".join((PREFIX, *ALIASES)), re.IGNORECASE)
_ELSEWHERE = frozenset({"TOKEN", "URL"})  # what our client and examples read; not settings

DAY_MS = 86_400_000

_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
# What apps have that are no web sites: capacitor://localhost, chrome-extension://…
_APP_ORIGIN = re.compile(
    r"(?!(?:https?|wss?|ftp|file|data|blob|javascript|about):)[a-z][a-z0-9+.-]{1,31}://[a-z0-9.-]+"
)
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_LISTEN = re.compile(r"[0-9A-Za-z.:_-]+")
_PATH = re.compile(r".+")
_LOCALES = ("en", "de", "fr", "es", "pt-BR", "ja", "zh-CN", "ar")
_MAIL_FROM = re.compile(r"[^\s@,;<>]+@[^\s@,;<>]+")
_WITHIN = (
    ("key_default_lifetime", "key_max_lifetime"),
    ("refresh_token_ttl", "refresh_absolute_ttl"),
    ("session_idle_ttl", "session_ttl"),
    ("step_up_after", "session_ttl"),
)
_SECRET_NAMES = frozenset(
    {"secret", "smtp_url", "database_url", "redis_url", "service_tokens", "keyshield_pepper"}
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its default; durations in milliseconds.

    The names are those of the environment variables in lower case.
    """

    token_management: bool = False
    database_url: str = "sqlite:///keybearer.db"
    redis_url: str | None = None
    secret: tuple[str, ...] = ()
    base_url: str = "http://127.0.0.1:8000"
    smtp_url: str | None = None
    mail_from: str | None = None
    require_email_verification: bool = True
    key_prefix: tuple[str, ...] = ("kb_",)
    key_creation: Literal["everyone", "admins", "nobody"] = "everyone"
    key_max_lifetime: int = 365 * DAY_MS
    key_default_lifetime: int = 90 * DAY_MS
    key_allow_no_expiry: bool = True
    key_rate_limit: RateLimit | None = RateLimit(maximum=1000, window_ms=60_000)
    max_keys_per_owner: int = 100
    permissions: frozenset[str] = frozenset()
    user_permissions: frozenset[str] | None = None
    access_token_ttl: int = 300_000
    refresh_token_ttl: int = 30 * DAY_MS
    refresh_absolute_ttl: int = 90 * DAY_MS
    session_ttl: int = 7 * DAY_MS
    session_idle_ttl: int = DAY_MS
    step_up_after: int | None = 15 * 60_000
    password_min_length: int = 15
    locales: tuple[str, ...] = _LOCALES
    trusted_proxies: AllowList | None = None
    trusted_origins: tuple[str, ...] = ()
    service_tokens: tuple[str, ...] = ()
    keyshield_pepper: str | None = None
    signing_key_rotation: int = 90 * DAY_MS
    key_retention: int = 90 * DAY_MS
    cache_size: int = 100_000
    cache_mb: int = 256
    stale_if_database_lost: int = 0
    spill_dir: str | None = None
    spill_mb: int = 64
    metrics_dir: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1

    def __repr__(self) -> str:
        return f"Settings(database={urlsplit(self.database_url).scheme}, base_url={self.base_url})"

    @property
    def secure(self) -> bool:
        """Whether browsers reach us over https, by BASE_URL."""
        return self.base_url.startswith("https://")

    @property
    def origin(self) -> str:
        """Scheme and authority of BASE_URL."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def sqlite_path(self) -> str | None:
        """The SQLite file, or None on PostgreSQL."""
        if not self.database_url.startswith("sqlite:"):
            return None
        return self.database_url.removeprefix("sqlite:///")


# --- what each variable takes ---------------------------------------------------------------


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError("takes true or false")


def _switch(text: str) -> bool:
    # Empty is off here alone: where the default is the safe one, nobody shall leave it by nothing.
    return text != "" and _boolean(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        fits = text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high
        if not fits:
            raise ValueError(f"takes a whole number from {low} to {high}")
        return int(text)

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _duration(low: int = 1_000, high: int = 3650 * DAY_MS) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = parse_duration(text)
        if not low <= value <= high:
            raise ValueError("takes a duration as 15m, 12h or 90d, within its bounds")
        return value

    return parse


def _url(text: str, takes: str, *schemes: str) -> SplitResult:
    """The parts of a URL that names a host; a bad one is told without a word of it.

    What Python says of a bad URL quotes it, and it may hold a password. Line breaks and tabs,
    which `urlsplit` drops in silence, are refused.
    """
    try:
        parts = urlsplit(text)
        fits = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(takes) from None
    if not fits or not text.isprintable() or " " in text:
        raise ValueError(takes)
    return parts


def _database(text: str) -> str:
    takes = "takes sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    if text.startswith("sqlite:"):
        file = text.removeprefix("sqlite:///")
        if file in (text, "", ":memory:") or "?" in file or not file.isprintable():
            raise ValueError(takes)
        return text
    _url(text, takes, "postgresql", "postgres")
    return "postgresql://" + text.split("://", 1)[1]


def _redis(text: str) -> str:
    parse_redis_url(text)
    return text


def _origin(text: str, takes: str) -> str:
    """Scheme and authority as browsers spell them: lower case, without the default port."""
    parts = _url(text, takes, "http", "https")
    host = parts.hostname or ""
    if "@" in parts.netloc or not _HOST.fullmatch(host):
        raise ValueError(takes)
    name = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{name}{port}"


def _base_url(text: str) -> str:
    takes = "takes the address people use, as https://auth.example.com"
    origin = _origin(text, takes)
    parts = urlsplit(text)
    if "?" in text or "#" in text or not text.isascii():
        raise ValueError(takes)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("takes an https:// address; http:// is for loopback alone")
    return origin + parts.path.rstrip("/")


def _smtp(text: str) -> str:
    _url(text, "takes smtp://USER:PASSWORD@HOST:PORT or smtps://…", "smtp", "smtps")
    return text


def _fitting(pattern: re.Pattern[str], takes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text) or not text.isprintable():
            raise ValueError(takes)
        return text

    return parse


def _locales(text: str) -> tuple[str, ...]:
    tags = _words(text)
    if not tags or not set(tags) <= set(_LOCALES) or len(set(tags)) < len(tags):
        raise ValueError(f"takes {', '.join(_LOCALES)}, each once")
    return tags


def _prefixes(text: str) -> tuple[str, ...]:
    prefixes = _words(text)
    for prefix in prefixes:
        allowed = set("abcdefghijklmnopqrstuvwxyz0123456789_")
        fits = 1 <= len(prefix) <= 16 and set(prefix) <= allowed and prefix.endswith("_")
        if not fits or prefix in ("kbs_", "kbr_", "kbc_"):
            raise ValueError("takes 1 to 16 of a-z, 0-9, _, ending in _ (not kbs_, kbr_, kbc_)")
    if not prefixes:
        raise ValueError("takes at least one prefix, as kb_")
    return prefixes


def _creation(text: str) -> str:
    if text not in ("everyone", "admins", "nobody"):
        raise ValueError("takes everyone, admins or nobody")
    return text


def _rate(text: str) -> RateLimit | None:
    rate = parse_rate(text)
    return None if rate is None else RateLimit(maximum=rate[0], window_ms=rate[1])


def _step_up(text: str) -> int | None:
    try:
        return None if text == "off" else _duration(low=60_000)(text)
    except ValueError:
        raise ValueError("takes a duration of 1m or more, as 15m, or off") from None


def _staleness(text: str) -> int:
    try:
        return 0 if text in ("off", "0") else _duration(high=3_600_000)(text)
    except ValueError:
        raise ValueError("takes a duration of 1s to 1h, as 5m, or off") from None


def _secret(text: str) -> tuple[str, ...]:
    secrets = _words(text)
    for secret in secrets:
        long = secret.isprintable() and len(secret.encode()) >= 32 and len(set(secret)) >= 8
        if not long or guessable(secret):
            raise ValueError("takes 32 random bytes or more: openssl rand -base64 48")
    return secrets


def _origins(text: str) -> tuple[str, ...]:
    takes = "takes origins as browsers send them, as https://app.example.com"
    for origin in _words(text):
        if _APP_ORIGIN.fullmatch(origin):
            continue
        if _origin(origin, takes) != origin:
            raise ValueError(takes)
    return _words(text)


def _hashes(text: str) -> tuple[str, ...]:
    for item in _words(text):
        if len(item) != 64 or not set(item) <= set("0123456789abcdef"):
            raise ValueError("takes hashes that `keybearer service-token create` printed")
    return _words(text)


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "token_management": _switch,
    "database_url": _database,
    "redis_url": _redis,
    "secret": _secret,
    "base_url": _base_url,
    "smtp_url": _smtp,
    "mail_from": _fitting(_MAIL_FROM, "takes one address, as keys@example.com"),
    "require_email_verification": _boolean,
    "key_prefix": _prefixes,
    "key_creation": _creation,
    "key_max_lifetime": _duration(),
    "key_default_lifetime": _duration(),
    "key_allow_no_expiry": _boolean,
    "key_rate_limit": _rate,
    "max_keys_per_owner": _whole(1, 100_000),
    "permissions": parse_catalogue,
    "user_permissions": parse_catalogue,
    "access_token_ttl": _duration(high=3_600_000),
    "refresh_token_ttl": _duration(),
    "refresh_absolute_ttl": _duration(),
    "session_ttl": _duration(),
    "session_idle_ttl": _duration(),
    "step_up_after": _step_up,
    "password_min_length": _whole(8, 64),
    "locales": _locales,
    "trusted_proxies": parse_trusted_proxies,
    "trusted_origins": _origins,
    "service_tokens": _hashes,
    "keyshield_pepper": _fitting(_PATH, "takes the pepper that keyshield was given"),
    "signing_key_rotation": _duration(low=DAY_MS // 24),
    "key_retention": _duration(low=DAY_MS),
    "cache_size": _whole(1, 10_000_000),
    "cache_mb": _whole(1, 65_536),
    "stale_if_database_lost": _staleness,
    "spill_dir": _fitting(_PATH, "takes a folder, as /var/lib/keybearer"),
    "spill_mb": _whole(1, 65_536),
    "metrics_dir": _fitting(_PATH, "takes a folder, as /run/keybearer"),
    "host": _fitting(_LISTEN, "takes an address to listen on, as 127.0.0.1"),
    "port": _whole(0, 65_535),
    "workers": _whole(1, 256),
}


def load(
    keywords: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = None,
) -> Settings:
    """The settings from keywords, the environment and a `.env` file.

    Keyword values may be text, as in the environment, or Python values (`True`, `8000`, a list
    of words).

    Raises:
        Misuse: an unknown name or a bad value; the text is one line.
    """
    environment = variables(environ=environ, dotenv=dotenv)
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        name = ALIASES.get(variable)
        if name is None:
            if not variable.upper().startswith(PREFIX):
                continue
            name = variable[len(PREFIX) :]
            if name in _ELSEWHERE:
                continue
        elif PREFIX + name in environment:
            continue
        if name.lower() in PARSERS and variable != variable.upper():
            # Beside KEYBEARER_PORT, which of them would win?
            raise Misuse(f"{variable} is not a setting: write {variable.upper()}")
        values[name.lower()] = _parse(variable, name.lower(), text)
    for keyword, value in (keywords or {}).items():
        if value is not None:
            values[keyword] = _parse(keyword, keyword, _as_text(value))
    if "base_url" not in values and "port" in values:
        values["base_url"] = f"http://127.0.0.1:{values['port']}"
    unset = Settings()
    for shorter, longer in _WITHIN:
        if longer in values and shorter not in values:
            values[shorter] = min(getattr(unset, shorter), values[longer])
    settings = Settings(**values)
    _check(settings)
    return settings


def variables(
    *, environ: Mapping[str, str] | None = None, dotenv: Path | None = None
) -> dict[str, str]:
    """What the environment sets, and below it the `.env` file, where there is one.

    Raises:
        Misuse: the file cannot be read, or a line of it that names us.
    """
    written = {} if dotenv is None else envfile.read(dotenv, _OURS)
    return {**written, **(os.environ if environ is None else environ)}


def _parse(variable: str, name: str, text: str) -> Any:
    parser = PARSERS.get(name)
    if parser is None:
        told = variable if variable.isprintable() else repr(variable)
        raise Misuse(f"{told} is not a setting; the settings are listed in docs/settings.md")
    try:
        return parser(text)
    except ValueError as error:
        # A URL with an @ may hold a password, whichever setting it stands in.
        shown = "" if name in _SECRET_NAMES or "@" in text else f" {text[:100]!r}"
        raise Misuse(f"{variable}{shown}: {error}") from None


def read(name: str, value: object) -> Any:
    """One value as the setting of that name takes it, text or a Python value.

    Raises:
        Misuse: it is a bad one.
    """
    return _parse(name, name, _as_text(value))


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return ",".join(str(item) for item in value)
    return str(value)


def _check(settings: Settings) -> None:
    if settings.sqlite_path is None and not settings.secret:
        raise Misuse("KEYBEARER_SECRET is required with PostgreSQL: openssl rand -base64 48")
    for shorter, longer in _WITHIN:
        if (getattr(settings, shorter) or 0) > getattr(settings, longer):
            raise Misuse(f"{PREFIX}{shorter.upper()} is longer than {PREFIX}{longer.upper()}")
    if settings.workers > 1 and settings.redis_url is None:
        raise Misuse("KEYBEARER_WORKERS above 1 needs KEYBEARER_REDIS_URL: limits are shared there")
