"""What a key may do: sets of `resource:action`, compared exactly.

    on the wire   {"files": ["read", "write"], "projects": ["read"]}
    inside        frozenset({"files:read", "files:write", "projects:read"})

There are no wildcards, no prefixes and no hierarchy: `files:read` is neither `files:*` nor
`files:read.all`. What is held, needed or asked for is settled by set arithmetic alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from keybearer.domain.errors import Misuse

MAX_RESOURCES = 64
MAX_ACTIONS = 64
"""Actions of one resource."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_NAME_RULE = (
    "is 1 to 64 of a-z, 0-9, '_', '.' and '-', and begins with a letter or a digit; "
    "there are no wildcards."
)


def parse(permissions: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Permissions as they stand on the wire; ValueError if a name or a number is out of bounds.

    A resource without an action is refused: it would vanish, and as a need it would ask nothing.
    """
    _check_resources(len(permissions))
    held: set[str] = set()
    for resource, actions in permissions.items():
        _check_name("The name of a resource", resource)
        if isinstance(actions, str) or not 1 <= len(actions) <= MAX_ACTIONS:
            raise ValueError(f"A resource has a list of 1 to {MAX_ACTIONS} actions.")
        for action in actions:
            _check_name("The name of an action", action)
            held.add(f"{resource}:{action}")
    return frozenset(held)


def to_wire(permissions: frozenset[str]) -> dict[str, list[str]]:
    """The reverse of `parse`; resources and actions are sorted."""
    wire: dict[str, list[str]] = {}
    for permission in sorted(permissions):
        resource, _, action = permission.partition(":")
        wire.setdefault(resource, []).append(action)
    # "a:x" sorts after "a-b:x", but "a" before "a-b".
    return dict(sorted(wire.items()))


def parse_catalogue(text: str) -> frozenset[str]:
    """The permissions a server knows, as a setting: `files:read,files:write`. Empty: none."""
    return _parse_pairs(text.split(",")) if text.strip(" ") else frozenset()


def parse_needs(
    needs: str | Iterable[str] | Mapping[str, Sequence[str]] | None,
) -> frozenset[str]:
    """What an endpoint asks of a key: `"files:read"`, several of these, or the wire's mapping.

    A string may hold several, with commas between. None asks for nothing; an empty string is a
    mistake in the guard and raises ValueError, as does everything else that is not a permission.
    """
    if needs is None:
        return frozenset()
    if isinstance(needs, str):
        return _parse_pairs(needs.split(","))
    if isinstance(needs, Mapping):
        return parse(needs)
    return _parse_pairs(needs)


def stated(
    needs: str | Iterable[str] | Mapping[str, Sequence[str]] | None, where: str
) -> frozenset[str]:
    """What the app's own code says, as `parse_needs` reads it.

    Args:
        where: what to name when it is wrong, as `permissions=`.

    Raises:
        Misuse: it is no list of permissions.
    """
    try:
        return parse_needs(needs)
    except (AttributeError, TypeError, ValueError) as error:
        raise Misuse(f"{where}: {error}") from None


def missing(held: frozenset[str], needed: frozenset[str]) -> frozenset[str]:
    """What is needed and not held; empty means allowed."""
    return needed - held


def ceiling(asked: frozenset[str], held: frozenset[str]) -> frozenset[str]:
    """What is asked for and held: nobody hands on more than they have."""
    return asked & held


def _parse_pairs(pairs: Iterable[str]) -> frozenset[str]:
    wire: dict[str, list[str]] = {}
    for pair in pairs:
        resource, colon, action = pair.strip(" ").partition(":")
        if not colon:
            raise ValueError("A permission is a resource and an action, as in files:read.")
        actions = wire.setdefault(resource, [])
        _check_resources(len(wire))
        if action not in actions:
            actions.append(action)
    return parse(wire)


def _check_resources(number: int) -> None:
    if number > MAX_RESOURCES:
        raise ValueError(f"Permissions name at most {MAX_RESOURCES} resources.")


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {_NAME_RULE}")
