"""Everything that somebody can do to keys, logins and people, once each, for the audit trail.

A deed is prepared and then done: doing it is one call, which writes the events that it names and
no others. U2 and the second key are never touched.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import httpx2

from keybearer.operations import outbox, people, service_tokens, upkeep
from tests.attacks.town import Town
from tests.people import PASSWORD, StandingClock, call_of, log_in, make_key

AGENT = {"user-agent": "deeds/1.0"}
NEW_PASSWORD = "seven quiet otters fold maps"
STRANGER = "stranger@example.com"

Done = Callable[[], Awaitable[object]]
_TOKEN = re.compile(r"\b[A-Za-z0-9]{43}\b")


@dataclass(frozen=True, slots=True)
class Deed:
    """What is done, by which kind of actor, and the events that it leaves, oldest first."""

    events: tuple[str, ...]
    prepare: Callable[[Town], Awaitable[Done]]
    actor: str = "access"
    outcome: str = "success"
    refused_with: int | None = None


async def mailed_token(town: Town, to: str) -> str:
    """What stands in the link of the newest mail to somebody."""
    letters = [each for each in await outbox.recent(town.app) if each.recipient == to]
    found = _TOKEN.search(letters[0].text)
    assert found is not None
    return found[0]


def post(town: Town, path: str, headers: dict[str, str] | None = None, **json: object) -> Done:
    return partial(town.post, path, {**AGENT, **(headers or {})}, **json)


def by_operator(town: Town, function: Callable[..., Awaitable[object]], who: str) -> Done:
    return lambda: function(call_of(town.app), who)


async def someone(town: Town, email: str, *, verified: bool = True) -> str:
    """A person made for one deed."""
    made = await people.create(call_of(town.app), email, "Some One", PASSWORD, verified=verified)
    return made.id


async def _sign_up(town: Town) -> Done:
    return post(town, "/sign-up/email", name="S", email=STRANGER, password=PASSWORD)


async def _verify(town: Town) -> Done:
    await someone(town, "unverified@example.com", verified=False)
    token = await mailed_token(town, "unverified@example.com")
    return post(town, "/verify-email", token=token)


async def _log_in(town: Town) -> Done:
    return post(town, "/login", email="u1@example.com", password=PASSWORD)


async def _sign_in(town: Town) -> Done:
    return post(town, "/sign-in/email", email="u1@example.com", password=PASSWORD)


async def _log_in_wrongly(town: Town) -> Done:
    return post(town, "/login", email="u1@example.com", password="wrong" + PASSWORD)


async def _log_out(town: Town) -> Done:
    return post(town, "/logout", await log_in(town.client, "u1@example.com"))


async def _end_sessions(town: Town) -> Done:
    await someone(town, "ends@example.com")
    await log_in(town.client, "ends@example.com")
    headers = await log_in(town.client, "ends@example.com")
    return post(town, "/revoke-other-sessions", headers)


async def _change_password(town: Town) -> Done:
    await someone(town, "changes@example.com")
    headers = await log_in(town.client, "changes@example.com")
    changed = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    return post(town, "/change-password", headers, **changed)


async def _ask_for_reset(town: Town) -> Done:
    return post(town, "/request-password-reset", email="u1@example.com")


async def _reset(town: Town) -> Done:
    await someone(town, "resets@example.com")
    await town.post("/request-password-reset", email="resets@example.com")
    token = await mailed_token(town, "resets@example.com")
    return post(town, "/reset-password", token=token, newPassword=NEW_PASSWORD)


async def _update_user(town: Town) -> Done:
    return post(town, "/update-user", town.t1, name="Somebody Else")


async def _create_key(town: Town) -> Done:
    return post(town, "/api-key/create", town.t1, name="made")


async def _update_key(town: Town) -> Done:
    return post(town, "/api-key/update", town.t1, keyId=town.k1["id"], name="renamed")


async def _disable_key(town: Town) -> Done:
    return post(town, "/api-key/update", town.t1, keyId=town.k1["id"], enabled=False)


async def _enable_key(town: Town) -> Done:
    await town.post("/api-key/update", town.t1, keyId=town.k1["id"], enabled=False)
    return post(town, "/api-key/update", town.t1, keyId=town.k1["id"], enabled=True)


async def _rotate_key(town: Town) -> Done:
    return post(town, "/api-key/rotate", town.t1, keyId=town.k1["id"], gracePeriod=60)


async def _rotating(town: Town, deed: str, **asked: object) -> Done:
    made = await make_key(town.client, town.t1, name="rotating")
    await town.post("/api-key/rotate", town.t1, keyId=made["id"])
    return post(town, f"/api-key/rotation/{deed}", town.t1, keyId=made["id"], **asked)


async def _finish_rotation(town: Town) -> Done:
    return await _rotating(town, "finish")


async def _extend_rotation(town: Town) -> Done:
    return await _rotating(town, "extend", gracePeriod=None)


async def _cancel_rotation(town: Town) -> Done:
    return await _rotating(town, "cancel")


async def _revoke_key(town: Town) -> Done:
    made = await make_key(town.client, town.t1, name="short-lived")
    return post(town, "/api-key/delete", town.t1, keyId=made["id"])


async def _revoke_itself(town: Town) -> Done:
    made = await make_key(town.client, town.t1, name="short-lived")
    return post(town, "/api-key/revoke-self", {"x-api-key": made["key"]})


async def _reuse(town: Town) -> Done:
    opened = await town.post("/login", email="u1@example.com", password=PASSWORD)
    spent = opened.json()["refreshToken"]
    for _ in range(2):
        refreshed = await town.post("/refresh", refreshToken=opened.json()["refreshToken"])
        assert refreshed.status_code == 200, refreshed.text
        opened = refreshed
    return post(town, "/refresh", refreshToken=spent)


async def _delete_account(town: Town) -> Done:
    await someone(town, "leaves@example.com")
    headers = await log_in(town.client, "leaves@example.com")
    await make_key(town.client, headers)
    return post(town, "/delete-user", headers, password=PASSWORD)


async def _create_user(town: Town) -> Done:
    return partial(someone, town, "made@example.com")


async def _disable_user(town: Town) -> Done:
    await someone(town, "disabled@example.com")
    await log_in(town.client, "disabled@example.com")
    return by_operator(town, people.disable, "disabled@example.com")


async def _enable_user(town: Town) -> Done:
    id = await someone(town, "enabled@example.com")
    await people.disable(call_of(town.app), id)
    return by_operator(town, people.enable, id)


async def _delete_user(town: Town) -> Done:
    id = await someone(town, "deleted@example.com")
    return by_operator(town, people.delete, id)


async def _create_service_token(town: Town) -> Done:
    return by_operator(town, service_tokens.create, "shop")


async def _revoke_service_token(town: Town) -> Done:
    made, _ = await service_tokens.create(call_of(town.app), "shop")
    return by_operator(town, service_tokens.revoke, made.id)


async def _rotate_signing(town: Town) -> Done:
    clock = town.app.clock
    assert isinstance(clock, StandingClock)
    clock.advance(town.app.settings.signing_key_rotation)
    return partial(upkeep.rotate_signing, town.app)


DEEDS = {
    "sign up": Deed(("user.signed_up",), _sign_up, actor="anonymous"),
    "prove the address": Deed(("email.verified",), _verify, actor="anonymous"),
    "log in": Deed(("session.opened",), _log_in, actor="anonymous"),
    "sign in": Deed(("session.opened",), _sign_in, actor="anonymous"),
    "log in wrongly": Deed(("login.failed",), _log_in_wrongly, actor="anonymous",
                           outcome="refused", refused_with=401),
    "log out": Deed(("session.ended",), _log_out),
    "end other sessions": Deed(("session.ended",), _end_sessions),
    "change the password": Deed(("password.changed", "session.ended", "session.opened"),
                                _change_password),
    "ask for a reset": Deed(("reset.requested",), _ask_for_reset, actor="anonymous"),
    "reset the password": Deed(("password.reset",), _reset, actor="anonymous"),
    "change the profile": Deed(("user.updated",), _update_user),
    "create a key": Deed(("key.created",), _create_key),
    "update a key": Deed(("key.updated",), _update_key),
    "disable a key": Deed(("key.updated",), _disable_key),
    "enable a key": Deed(("key.updated",), _enable_key),
    "rotate a key": Deed(("key.rotated",), _rotate_key),
    "finish a rotation": Deed(("key.rotation_finished",), _finish_rotation),
    "extend a rotation": Deed(("key.rotation_extended",), _extend_rotation),
    "cancel a rotation": Deed(("key.rotation_cancelled",), _cancel_rotation),
    "revoke a key": Deed(("key.revoked",), _revoke_key),
    "a key revokes itself": Deed(("key.revoked",), _revoke_itself, actor="key"),
    "reuse a refresh token": Deed(("session.ended", "refresh.reuse"), _reuse, actor="anonymous",
                                  refused_with=401),
    "delete the own account": Deed(("key.revoked", "session.ended", "user.deleted"),
                                   _delete_account),
    "make a user": Deed(("user.created",), _create_user, actor="operator"),
    "disable a user": Deed(("user.disabled", "session.ended"), _disable_user, actor="operator"),
    "enable a user": Deed(("user.enabled",), _enable_user, actor="operator"),
    "delete a user": Deed(("user.deleted",), _delete_user, actor="operator"),
    "make a service token": Deed(("service_token.created",), _create_service_token,
                                 actor="operator"),
    "revoke a service token": Deed(("service_token.revoked",), _revoke_service_token,
                                   actor="operator"),
    "rotate the signing key": Deed(("signing_key.rotated",), _rotate_signing, actor="operator"),
}  # fmt: skip


def accepted(done: object, deed: Deed) -> None:
    """The deed was answered as it should be; those that are plain calls would have raised."""
    if isinstance(done, httpx2.Response):
        assert done.status_code == (deed.refused_with or 200), done.text
