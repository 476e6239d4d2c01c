"""Which credential a request presents: one, none, or too many.

    Authorization: Bearer <credential>     exactly one SP (RFC 6750 section 2.1)
    X-API-Key: <credential>                an API key or a service token, nothing else
    Cookie: <name>=<token>.<signature>     only when neither of the two is there

Credentials are exact bytes: nothing is trimmed, decoded, folded or split. Nothing is read from
the query or the body.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from keybearer.domain.model import Refusal
from keybearer.verification import hosted

Via = Literal["bearer", "header", "cookie"]
Headers = Iterable[tuple[bytes, bytes]]

MAX_CREDENTIAL = 8_192
MAX_AGENT = 200
"""Of a user agent: what is kept of it, in memory too."""


_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})

Getter = Callable[[Headers], str | None]
"""The host app's own way to find an API key in a request: raw headers -> the key, or None."""


class Places:
    """Where an API key may stand beside `X-API-Key`.

    Args:
        names: of more headers, in lower case.
        getter: finds it in a way of its own.
    """

    def __init__(self, names: Iterable[bytes] = (), getter: Getter | None = None) -> None:
        self._names = frozenset(names) - {b"x-api-key"}
        self._getter = getter

    def __bool__(self) -> bool:
        return bool(self._names) or self._getter is not None

    def named(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The same headers, with the keys of those that were named in `X-API-Key`."""
        return [(b"x-api-key" if name in self._names else name, value) for name, value in headers]

    def told(self, headers: Headers) -> Headers:
        """The same headers, with every key in `X-API-Key`.

        The header that the getter has read is no second credential: the first `X-API-Key` or
        `Authorization` that has that very key in it, alone or after a scheme, is left out.

        Raises:
            Unavailable: the getter raised, or gave what is no text.
        """
        pairs = self.named(headers)
        found = None if self._getter is None else hosted.asked("getter=", self._getter, pairs)
        if found is None or found == "":
            return pairs
        if not isinstance(found, str):
            raise hosted.odd("getter=", "a key or None")
        key = found.encode("utf-8", "surrogatepass")
        for place, (name, value) in enumerate(pairs):
            if name in _CREDENTIALS and (value == key or value.endswith(b" " + key)):
                del pairs[place]
                break
        return [*pairs, (b"x-api-key", key)]


class Presented:
    """A credential as it came, and the user agent that sent it."""

    __slots__ = ("credential", "user_agent", "via")

    def __init__(self, credential: bytes, via: Via, user_agent: bytes | None) -> None:
        self.credential = credential
        self.via = via
        self.user_agent = user_agent

    def __repr__(self) -> str:
        return f"Presented(via={self.via!r})"


def read(headers: Headers, cookie: bytes) -> Presented | Refusal | None:
    """What the headers present; None for nothing.

    Args:
        headers: raw pairs with lower-case names, as ASGI gives them.
        cookie: the name of the session cookie.
    """
    credential = cookies = user_agent = None
    via: Via = "bearer"
    for name, value in headers:
        if name == b"authorization":
            if credential is not None:
                return Refusal(code="MULTIPLE_CREDENTIALS")
            if value[:7].lower() != b"bearer ":
                # Another scheme: presented, and nothing that we accept.
                return Refusal(code="INVALID_ACCESS_TOKEN")
            credential = value[7:]
        elif name == b"x-api-key":
            if credential is not None:
                return Refusal(code="MULTIPLE_CREDENTIALS")
            credential = value
            via = "header"
        elif name == b"user-agent":
            user_agent = value[:MAX_AGENT]
        elif name == b"cookie":
            cookies = value if cookies is None else cookies + b"; " + value
    if credential is None:
        if cookies is None:
            return None
        credential = _cookie(cookies, cookie)
        if not credential or len(credential) > MAX_CREDENTIAL:
            return None  # not a cookie of ours: as if it were not there
        via = "cookie"
    if not credential or len(credential) > MAX_CREDENTIAL:
        return Refusal(code="INVALID_API_KEY" if via == "header" else "INVALID_ACCESS_TOKEN")
    return Presented(credential, via, user_agent)


def _cookie(cookies: bytes, name: bytes) -> bytes | None:
    """The value of one cookie; one that stands there twice is none of ours."""
    found = None
    for pair in cookies.split(b";"):
        key, _, value = pair.strip(b" \t").partition(b"=")
        if key == name:
            if found is not None:
                return None
            found = value
    return found


def raw(headers: Mapping[str, str] | Iterable[tuple[object, object]]) -> list[tuple[bytes, bytes]]:
    """Headers of any framework as the raw pairs that `read` takes.

    Args:
        headers: Starlette's `Headers`, a mapping of names to values, or pairs of text or bytes.
    """
    pairs: Iterable[tuple[object, object]]
    own = getattr(headers, "raw", None)
    if isinstance(own, list):
        pairs = own
    elif isinstance(headers, Mapping):
        pairs = headers.items()
    else:
        pairs = headers
    return [(_bytes(name).lower(), _bytes(value)) for name, value in pairs]


def user_agent(headers: Headers) -> str | None:
    """What the first User-Agent says, printable, 200 characters at the most."""
    for name, value in headers:
        if name == b"user-agent":
            text = value[:MAX_AGENT].decode("latin-1")
            return "".join(char if char.isprintable() else "?" for char in text)
    return None


def _bytes(text: object) -> bytes:
    if isinstance(text, bytes):
        return text
    return str(text).encode("latin-1", "replace")
