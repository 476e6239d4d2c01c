"""Settings: environment, `.env` and keywords, checked once at the start.

Every setting is `KEYBEARER_<NAME>` in the environment and `<name>` as keyword of `Auth(...)`;
keywords win over the environment, the environment over `.env`. An unknown name or a bad value is
a `Misuse` whose one line names the variable and what it takes.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from keybearer import envfile
from keybearer.domain.errors import Misuse
from keybearer.domain.model import RateLimit
from keybearer.domain.networks import AllowList
from keybearer.settingvalues import DAY_MS, LOCALES, PARSERS

PREFIX = "KEYBEARER_"
ALIASES = {"NEXT_PUBLIC_BETTER_AUTH_TOKEN_MANAGEMENT": "TOKEN_MANAGEMENT"}
_OURS = re.compile("|".join((PREFIX, *ALIASES)), re.IGNORECASE)
_ELSEWHERE = frozenset({"TOKEN", "URL"})  # what our client and examples read; not settings

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
    locales: tuple[str, ...] = LOCALES
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
