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


LASTING = {"session_idle_ttl": "7d", "step_up_after": "off"}
"""Logins that go on for the days that pass between two pairs."""


def _a(members: Members) -> dict[str, Any]:
    """`apiKey({enableMetadata, enableSessionForAPIKeys})`, `bearer()`, `jwt()`."""
    keys = api_key(
        prefix=["kb_", "pk_"],
        rate_limit="10/1d",
        min_lifetime="1d",
        name_length=(1, 32),
        starting_characters=6,
        sessions=True,
    )
    return {"base_url": "http://localhost:45801", "plugins": [keys, bearer(), jwt()], **LASTING}


def _b(members: Members) -> dict[str, Any]:
    """`apiKey()` as it is."""
    keys = api_key(rate_limit="10/1d", starting_characters=6, metadata=False)
    return {"base_url": "http://localhost:45802", "plugins": [keys, bearer(), jwt()]}


def _c(members: Members) -> dict[str, Any]:
    """Three configurations: public, secret, and one that belongs to organizations."""
    public = api_key(config_id="public", prefix="pk_", rate_limit="100/1h", starting_characters=6)
    secret = api_key(
        config_id="secret",
        prefix="sk_",
        rate_limit="10/1d",
        starting_characters=6,
        require_name=True,
    )
    org = api_key(
        config_id="org",
        prefix="org_",
        rate_limit="10/1d",
        starting_characters=6,
        default_permissions={"files": ["read"]},
        sessions=True,
        role_in=members.role,
        roles={"owner": ["create", "read", "update", "delete"], "member": ["read"]},
    )
    return {"base_url": "http://localhost:45803", "plugins": [public, secret, org, bearer(), jwt()]}


def _d(members: Members) -> dict[str, Any]:
    """Two headers, ten starting characters, an hour unless asked."""
    keys = api_key(
        prefix="ss_",
        rate_limit="10/1d",
        default_lifetime="1h",
        starting_characters=10,
        headers=["x-one", "x-two"],
        sessions=True,
    )
    return {"base_url": "http://localhost:45804", "plugins": [keys, bearer(), jwt()]}


def _e(members: Members) -> dict[str, Any]:
    """Behind https, with the limit of requests on."""
    return {"base_url": "https://auth.example.test", "trusted_proxies": "127.0.0.1"}


def _f(members: Members) -> dict[str, Any]:
    """Three requests in two seconds."""
    keys = api_key(rate_limit="3/2s", starting_characters=6, sessions=True)
    return {"base_url": "http://localhost:45806", "plugins": [keys, bearer(), jwt()], **LASTING}


SETTINGS: dict[str, Callable[[Members], dict[str, Any]]] = {
    "A": _a, "B": _b, "C": _c, "D": _d, "E": _e, "F": _f,
}  # fmt: skip
