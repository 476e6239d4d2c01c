"""One key: what it did, what it may; change it, rotate it, end it."""

from typing import Literal

from msgspec import UNSET

from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso, parse_iso
from keybearer.operations.declaration import Empty
from keybearer.operations.keyedits import UpdateKey, update_api_key
from keybearer.operations.keyends import RevokeKey, RotateKey, revoke_api_key, rotate_api_key
from keybearer.operations.keypolicy import KeyPolicy, get_key_policy
from keybearer.operations.keys import GetKey, get_api_key
from keybearer.operations.keywire import ApiKey
from keybearer.operations.reports import (
    AskActivity,
    AskAudit,
    AskUsage,
    get_usage,
    list_activity,
    list_audit,
)
from keybearer.operations.rotation import (
    AboutRotation,
    ExtendRotation,
    cancel_rotation,
    extend_rotation,
    finish_rotation,
    get_rotation,
)
from keybearer.settingvalues import DAY_MS
from keybearer.web.pages import charts, making
from keybearer.web.pages.forms import Form, checked, confirm, must_confirm
from keybearer.web.pages.visit import Answer, Visit
from keybearer.web.pages.words import REASONS

RANGES: dict[str, tuple[Literal["hour", "day"], int]] = {
    "24h": ("hour", 24),
    "7d": ("hour", 7 * 24),
    "30d": ("day", 30),
    "90d": ("day", 90),
}
"""What the chart can show: steps, and how many."""

GRACES = {"0": 0, "1h": 3_600, "24h": 86_400, "7d": 7 * 86_400, "open": None}
"""How long the old secret goes on, in seconds; None until somebody finishes the rotation."""

STEPS = {
    "finish": "rotation-finished",
    "extend": "rotation-extended",
    "cancel": "rotation-cancelled",
}
"""What can be done with a rotation, and what the page of the key says then."""

_HISTORY = 10


async def show(visit: Visit) -> Answer:
    """The page of a key."""
    key = await visit.ask(get_api_key, GetKey(id=visit.named))
    return await _page(visit, key, Form(_settings(key), several={"permission": _names(key)}))


async def _page(visit: Visit, key: ApiKey, form: Form, *, status: int = 200) -> Answer:
    chosen = visit.query.get("range", "30d")
    interval, steps = RANGES.get(chosen, RANGES["30d"])
    since = visit.now + 1 - (steps - 1) * charts.STEPS_MS[interval]
    report = await visit.ask(
        get_usage, AskUsage(key_id=key.id, since=iso(since), interval=interval)
    )
    activity = await visit.ask(list_activity, AskActivity(key_id=key.id))
    policy = await visit.ask(get_key_policy, Empty())
    return visit.html(
        "key.html",
        status=status,
        activity=activity.events,
        chart=charts.chart(report),
        form=form,
        history=await visit.ask(list_audit, AskAudit(target=key.id, limit=_HISTORY)),
        interval=interval,
        key=key,
        blank=Form(),
        dates=making.dates(visit.now, policy),
        lifetimes=making.lifetimes(visit.now, policy),
        must_confirm=await must_confirm(visit),
        policy=policy,
        range=chosen if chosen in RANGES else "30d",
        ranges=RANGES,
        reasons=REASONS,
        recent=await _recent(visit, key),
        rotation=await visit.ask(get_rotation, AboutRotation(key_id=key.id)),
    )


async def _recent(visit: Visit, key: ApiKey) -> dict[str, int]:
    """How many requests there were lately: what a rotation or a revocation would touch."""
    day = await visit.ask(get_usage, AskUsage(key_id=key.id, interval="hour"))
    week = await visit.ask(
        get_usage,
        AskUsage(key_id=key.id, since=iso(visit.now - 7 * DAY_MS), interval="day"),
    )
    return {"day": sum(day.total.values()), "week": sum(week.total.values())}


async def change(visit: Visit) -> Answer:
    """Changes the key's words, expiry, permissions, networks: those that the form has changed.

    The form says which state of the key it shows: where another tab has changed it since, its
    other fields would undo that.
    """
    fields = visit.fields
    key = await visit.ask(get_api_key, GetKey(id=visit.named))
    form = Form(fields, several={"permission": visit.several("permission")})
    policy = await visit.ask(get_key_policy, Empty())
    try:
        networks = fields.get("networks", "").replace(",", "\n").split()
        wanted = {
            "name": _unless_same(fields.get("name", "").strip(), key.name or ""),
            "description": _unless_same(
                fields.get("description", "").strip(), key.description or ""
            ),
            "ip_allow": UNSET if networks == key.ip_allow else networks,
        }
        if policy.permissions is not None:
            ticked = making.permissions(visit, policy)
            shown = _offered(key, policy)
            wanted["permissions"] = UNSET if ticked == shown else ticked
        changes = {name: value for name, value in wanted.items() if value is not UNSET}
        expires = making.expiry({"expires": "keep", **fields}, visit.now)
        if isinstance(expires, Failure):
            raise expires
        changes |= expires
        if changes:
            await confirm(visit)
            changes |= {"key_id": key.id, "if_updated_at": fields.get("was", "")}
            await visit.ask(update_api_key, checked(UpdateKey, changes))
    except Failure as failure:
        if failure.code == "KEY_CHANGED_MEANWHILE":
            form = Form(_settings(key), several={"permission": _names(key)})
        return await _page(visit, key, form, status=form.refuse(visit, failure))
    return visit.go(_address(visit), notice="saved")


def _unless_same(wanted: str, has: str) -> object:
    return UNSET if wanted == has else wanted


async def switch(visit: Visit) -> Answer:
    """Enables or disables the key, at once."""
    enabled = visit.fields.get("enabled") == "true"
    key = await visit.ask(get_api_key, GetKey(id=visit.named))
    try:
        await confirm(visit)
        await visit.ask(update_api_key, UpdateKey(key_id=key.id, enabled=enabled))
    except Failure as failure:
        form = Form()
        status = form.refuse(visit, failure)
        must = await must_confirm(visit)
        return visit.html("enable.html", status=status, key=key, form=form, must_confirm=must)
    return visit.go(_address(visit), notice="enabled" if enabled else "disabled")


# --- rotation ---


async def show_rotate(visit: Visit) -> Answer:
    """How long the old secret shall go on."""
    key = await visit.ask(get_api_key, GetKey(id=visit.named))
    return await _rotate_form(visit, key, Form())


async def _rotate_form(visit: Visit, key: ApiKey, form: Form, *, status: int = 200) -> Answer:
    policy = await visit.ask(get_key_policy, Empty())
    return visit.html(
        "rotate.html",
        status=status,
        form=form,
        key=key,
        lifetimes=making.lifetimes(visit.now, policy),
        policy=policy,
        must_confirm=await must_confirm(visit),
        recent=await _recent(visit, key),
    )


async def rotate(visit: Visit) -> Answer:
    """Gives the key a new secret and shows it; with a later end, if that was chosen as well."""
    fields = {"expires": "keep", **visit.fields}
    form = Form(fields)
    key = await visit.ask(get_api_key, GetKey(id=visit.named))
    expires = making.expiry(fields, visit.now)
    try:
        if isinstance(expires, Failure):
            raise expires
        asked = RotateKey(
            key_id=key.id,
            grace_period=_grace(fields),
            replaces=fields.get("replaces", "")[:64],
        )
        await confirm(visit)
        if expires and asked.replaces == key.start:
            await visit.ask(update_api_key, checked(UpdateKey, {"key_id": key.id, **expires}))
        made = await visit.ask(rotate_api_key, asked)
    except Failure as failure:
        return await _rotate_form(visit, key, form, status=form.refuse(visit, failure))
    return visit.html("revealed.html", key=made, rotated=True)


def _grace(fields: dict[str, str]) -> int | None:
    grace = fields.get("grace", "24h")
    if grace not in GRACES:
        raise Failure("VALIDATION_ERROR")
    return GRACES[grace]


async def show_rotation(visit: Visit) -> Answer:
    """What a step of the rotation ends, and whether that is meant."""
    action = visit.query.get("action", "")
    return await _rotation_page(visit, action, Form({"grace": visit.query.get("grace", "24h")}))


async def _rotation_page(visit: Visit, action: str, form: Form, *, status: int = 200) -> Answer:
    key = await visit.ask(get_api_key, GetKey(id=visit.named))
    if action not in STEPS:
        raise Failure("VALIDATION_ERROR")
    rotation = await visit.ask(get_rotation, AboutRotation(key_id=key.id))
    if not rotation.rotating and not form.errors:
        return visit.go(_address(visit))
    return visit.html(
        "rotation.html",
        status=status,
        action=action,
        ends=[secret for secret in rotation.secrets if secret.current == (action == "cancel")],
        form=form,
        key=key,
        must_confirm=action != "finish" and await must_confirm(visit),
    )


async def steer_rotation(visit: Visit) -> Answer:
    """Finishes, extends or cancels the rotation that the form has shown."""
    action, current = visit.fields.get("action", ""), visit.fields.get("current", "")[:64]
    form = Form(visit.fields)
    about = AboutRotation(key_id=visit.named, current=current)
    try:
        await confirm(visit)
        if action == "finish":
            await visit.ask(finish_rotation, about)
        elif action == "cancel":
            await visit.ask(cancel_rotation, about)
        elif action == "extend":
            grace = _grace(visit.fields)
            asked = ExtendRotation(key_id=visit.named, grace_period=grace, current=current)
            await visit.ask(extend_rotation, asked)
    except Failure as failure:
        if failure.code == "KEY_NOT_FOUND":
            raise
        return await _rotation_page(visit, action, form, status=form.refuse(visit, failure))
    if action not in STEPS:
        raise Failure("VALIDATION_ERROR")
    return visit.go(_address(visit), notice=STEPS[action])


# --- the end ---


async def show_revoke(visit: Visit) -> Answer:
    """What ends with the key, and whether that is meant."""
    key = await visit.ask(get_api_key, GetKey(id=visit.named))
    if key.status == "revoked":
        return visit.go(_address(visit))
    recent = await _recent(visit, key)
    return visit.html("revoke.html", key=key, reasons=REASONS, recent=recent, form=Form())


async def revoke(visit: Visit) -> Answer:
    """Ends the key, and shows the receipt."""
    reason = visit.fields.get("reason", "")
    key = await visit.ask(get_api_key, GetKey(id=visit.named))
    receipt = await visit.ask(
        revoke_api_key, RevokeKey(key_id=key.id, reason=reason if reason in REASONS else None)
    )
    return visit.html("revoked.html", receipt=receipt, key=key, many=[])


def _address(visit: Visit) -> str:
    return visit.url(f"account/api-keys/{visit.named}")


def _settings(key: ApiKey) -> dict[str, str]:
    return {
        "name": key.name or "",
        "description": key.description or "",
        "expires": "keep",
        "networks": "\n".join(key.ip_allow),
        "date": "" if key.expires_at is None else iso(parse_iso(key.expires_at))[:10],
    }


def _offered(key: ApiKey, policy: KeyPolicy) -> dict[str, list[str]]:
    """The permissions of a key that its form can show: not those that its owner has lost."""
    offered = policy.permissions or {}
    shown = {
        resource: [action for action in actions if action in offered.get(resource, [])]
        for resource, actions in (key.permissions or {}).items()
    }
    return {resource: actions for resource, actions in shown.items() if actions}


def _names(key: ApiKey) -> list[str]:
    permissions = key.permissions or {}
    return [f"{resource}:{action}" for resource in permissions for action in permissions[resource]]
