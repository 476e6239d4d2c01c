"""What each setting takes: a text, and the value that it means.

Each parser raises ValueError with what it takes, in words that follow the name of the setting.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from keybearer.domain.credentials import guessable
from keybearer.domain.durations import parse_duration, parse_rate
from keybearer.domain.model import RateLimit
from keybearer.domain.networks import parse_trusted_proxies
from keybearer.domain.permissions import parse_catalogue
from keybearer.domain.redisurl import parse_redis_url

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
LOCALES = ("en", "de", "fr", "es", "pt-BR", "ja", "zh-CN", "ar")
_MAIL_FROM = re.compile(r"[^\s@,;<>]+@[^\s@,;<>]+")


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
    if not tags or not set(tags) <= set(LOCALES) or len(set(tags)) < len(tags):
        raise ValueError(f"takes {', '.join(LOCALES)}, each once")
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
