"""Whose credential it is: whether the owner is active, and what the owner holds."""

from collections.abc import Awaitable, Callable

from keybearer.domain.model import OwnerState, Role, User

Holds = Callable[[str, Role], Awaitable[frozenset[str] | None]]
"""What an owner may do at the most: (owner id, role) -> `resource:action` names.

None means no ceiling: keys have what the server gave them, and scopes do not limit users.
"""


def owner_state(user: User | None, *, must_verify: bool) -> OwnerState:
    """What a user's row means for the credentials of that user."""
    if user is None:
        return "gone"
    if user.disabled_at is not None:
        return "disabled"
    if must_verify and user.email_verified_at is None:
        return "unverified"
    return "active"
