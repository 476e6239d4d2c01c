"""The configurations that Better Auth was captured with, as ours."""

from collections.abc import Callable
from typing import Any

from keybearer import api_key, bearer, jwt


class Members:
    """The organizations of a host app: who is a member, in which role."""

    def __init__(self) -> None:
        self._roles: dict[tuple[str, str], str] = {}

    def add(self, organization: str, user: str, role: str) -> None:
        self._roles[organization, user] = role

    async def role(self, organization: str, user: str) -> str | None:
        return self._roles.get((organization, user))


def _a(members: Members) -> dict[str, Any]:
    """`apiKey({enableMetadata, enableSessionForAPIKeys})`, `bearer()`, `jwt()`."""
    return {
        "base_url": "http://localhost:45801",
        "session_idle_ttl": "7d",
        "step_up_after": "off",
        "plugins": [
            api_key(prefix=["kb_", "pk_"], rate_limit="10/1d"),
            bearer(),
            jwt(),
        ],
    }


def _b(members: Members) -> dict[str, Any]:
    """`apiKey()` as it is."""
    return {
        "base_url": "http://localhost:45802",
        "plugins": [api_key(rate_limit="10/1d"), bearer(), jwt()],
    }


def _c(members: Members) -> dict[str, Any]:
    """Three configurations: public, secret, and one that belongs to organizations."""
    return {"base_url": "http://localhost:45803", "plugins": [api_key(rate_limit="10/1d")]}


def _d(members: Members) -> dict[str, Any]:
    """Two headers, ten starting characters, an hour unless asked."""
    return {
        "base_url": "http://localhost:45804",
        "plugins": [api_key(prefix="ss_", default_lifetime="1h"), bearer(), jwt()],
    }


def _e(members: Members) -> dict[str, Any]:
    """Behind https, with the limit of requests on."""
    return {"base_url": "https://auth.example.test", "trusted_proxies": "127.0.0.1"}


def _f(members: Members) -> dict[str, Any]:
    """Three requests in two seconds."""
    return {
        "base_url": "http://localhost:45806",
        "session_idle_ttl": "7d",
        "step_up_after": "off",
        "plugins": [api_key(rate_limit="3/2s"), bearer(), jwt()],
    }


SETTINGS: dict[str, Callable[[Members], dict[str, Any]]] = {
    "A": _a, "B": _b, "C": _c, "D": _d, "E": _e, "F": _f,
}  # fmt: skip
