"""One key: what it did, what it may; change it, rotate it, end it."""

from typing import Literal

from msgspec import UNSET

from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso, parse_iso
from keybearer.operations.declaration import Empty
from keybearer.operations.keyedits import UpdateKey, update_api_key
from keybearer.operations.keyends import RevokeKey, RotateKey, revoke_api_key, rotate_api_key
from keybearer.operations.keypolicy import get_key_policy
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
from keybearer.settings import DAY_MS
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
        latest=iso(visit.now + policy.max_lifetime * 1000)[:10],
        lifetimes=making.lifetimes(visit.now, policy),
        must_confirm=await must_confirm(visit),
        policy=policy,
        range=chosen if chosen in RANGES else "30d",
        ranges=RANGES,
        reasons=REASONS,
        recent=await _recent(visit, key),
        rotation=await visit.ask(get_rotation, AboutRotation(key_id=key.id)),
        tomorrow=iso(visit.now + DAY_MS)[:10],
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
    """Changes the key's words, expiry, permissions, networks: those that the form has changed."""
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
            wanted["permissions"] = UNSET if ticked == (key.permissions or {}) else ticked
        changes = {name: value for name, value in wanted.items() if value is not UNSET}
        expires = making.expiry({"expires": "keep", **fields}, visit.now)
        if isinstance(expires, Failure):
            raise expires
        changes |= expires
        if changes:
            await confirm(visit)
            await visit.ask(update_api_key, checked(UpdateKey, {"key_id": key.id, **changes}))
    except Failure as failure:
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


async def steer_rotation(visit: Visit) -> Answer:
    """Finishes, extends or cancels a rotation."""
    action = visit.fields.get("action", "")
    if action == "finish":
        await visit.ask(finish_rotation, AboutRotation(key_id=visit.named))
        notice = "rotation-finished"
    elif action == "cancel":
        await visit.ask(cancel_rotation, AboutRotation(key_id=visit.named))
        notice = "rotation-cancelled"
    elif action == "extend":
        asked = ExtendRotation(key_id=visit.named, grace_period=_grace(visit.fields))
        await visit.ask(extend_rotation, asked)
        notice = "rotation-extended"
    else:
        raise Failure("VALIDATION_ERROR")
    return visit.go(_address(visit), notice=notice)


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


def _names(key: ApiKey) -> list[str]:
    permissions = key.permissions or {}
    return [f"{resource}:{action}" for resource in permissions for action in permissions[resource]]
