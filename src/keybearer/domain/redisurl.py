"""Where Redis is: REDIS_URL in all its forms.

    redis://USER:PASSWORD@HOST:PORT/DB                            one server
    redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DB  sentinels, and what they watch
    redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT              some nodes of a cluster

`rediss…` is the same over TLS. User and password are those of Redis. Sentinels are asked without,
unless `?sentinel_username=…&sentinel_password=…` names theirs. Both are percent-encoded.
"""

import re
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

Kind = Literal["single", "sentinel", "cluster"]

_KINDS: dict[str, Kind] = {"": "single", "+sentinel": "sentinel", "+cluster": "cluster"}
_PORTS: dict[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_URL = re.compile(r"redis(s?)(\+sentinel|\+cluster|)://(?:([^/?#]*)@)?([^/?#@]*)(/[^?#]*)?(\?.*)?")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_TAKES = (
    "takes redis://USER:PASSWORD@HOST:PORT/DB, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or "
    "redis+cluster://HOST:PORT,HOST:PORT, and rediss instead of redis for TLS"
)


class RedisUrl(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a REDIS_URL; its text has no password."""

    kind: Kind
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    db: int
    service: str
    sentinel_username: str | None
    sentinel_password: str | None

    @property
    def where(self) -> str:
        """The hosts, for people."""
        return ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords, to keep them out of logs."""
        return tuple(word for word in (self.password, self.sentinel_password) if word)

    def __repr__(self) -> str:
        return f"RedisUrl({self.kind} at {self.where})"


def parse_redis_url(text: str) -> RedisUrl:
    """The parts of a REDIS_URL.

    Raises:
        ValueError: it is none; the message says what it takes, and quotes nothing of it.
    """
    found = _URL.fullmatch(text)
    if found is None or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(_TAKES)
    tls, suffix, login, hosts, path, query = found.groups()
    kind = _KINDS[suffix]
    several = tuple(_host(each, _PORTS[kind]) for each in hosts.split(","))
    if kind == "single" and len(several) > 1:
        raise ValueError("takes one host; several are redis+sentinel:// or redis+cluster://")
    username, password = _login(login)
    service, db = _path(kind, (path or "").strip("/"))
    sentinels = _query(kind, query)
    return RedisUrl(
        kind=kind,
        tls=tls == "s",
        hosts=several,
        username=username,
        password=password,
        db=db,
        service=service,
        sentinel_username=sentinels.get("sentinel_username"),
        sentinel_password=sentinels.get("sentinel_password"),
    )


def _host(text: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"redis://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        # From None: the cause quotes a piece of the URL, which may be one of the password.
        raise ValueError(_TAKES) from None
    if not _HOST.fullmatch(host) or port == 0:
        raise ValueError(_TAKES)
    return host, port or default


def _login(login: str | None) -> tuple[str | None, str | None]:
    if login is None:
        return None, None
    username, _, password = login.partition(":")
    if not password:
        raise ValueError("takes USER:PASSWORD@ or :PASSWORD@ before the host")
    return unquote(username) or None, unquote(password)


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """The service that sentinels watch, and the number of the database."""
    service = ""
    if kind == "sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ValueError("takes the name that the sentinels watch, as …:26379/mymaster")
    if path and not (path.isdigit() and len(path) <= 5):
        raise ValueError("takes a number as database, as redis://HOST:PORT/0")
    if kind == "cluster" and path.strip("0"):
        raise ValueError("takes no database with redis+cluster://: a cluster has only 0")
    return unquote(service), int(path or 0)


def _query(kind: Kind, query: str | None) -> dict[str, str]:
    pairs = dict(parse_qsl((query or "").removeprefix("?"), keep_blank_values=True))
    known = {"sentinel_username", "sentinel_password"} if kind == "sentinel" else set()
    if not set(pairs) <= known or ("sentinel_username" in pairs) > ("sentinel_password" in pairs):
        raise ValueError(
            "takes no options, but with redis+sentinel:// sentinel_username, sentinel_password"
        )
    return pairs
