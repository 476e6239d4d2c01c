"""Create a key, and show it: this once.

The key is in the answer to the form, and nowhere else: nothing is kept for a page that would
come after it. So that a form which is sent again makes no second key, each has a name of its
own (`Idempotency-Key`); its answer then has no secret any more, and says so.
"""

import msgspec
from msgspec import UNSET, UnsetType

from keybearer.domain.errors import Failure
from keybearer.domain.instants import iso, parse_iso
from keybearer.operations.declaration import Empty
from keybearer.operations.keypolicy import KeyPolicy, get_key_policy
from keybearer.operations.keys import CreateKey, create_api_key
from keybearer.settingvalues import DAY_MS
from keybearer.web.pages.forms import Form, checked, confirm, must_confirm, once
from keybearer.web.pages.visit import Answer, Visit

LIFETIMES = ("7", "30", "60", "90", "365")
_PREFILLED = ("name", "description", "expires")
_READING = frozenset({"get", "list", "read", "view"})


class Lifetime(msgspec.Struct, frozen=True, kw_only=True):
    """A choice of the form: so many days, and the instant that it means."""

    days: str
    at: int
    allowed: bool


async def show(visit: Visit) -> Answer:
    """The form, empty or filled in by a link."""
    filled = {name: visit.query[name][:500] for name in _PREFILLED if name in visit.query}
    policy = await visit.ask(get_key_policy, Empty())
    form = Form({**filled, "once": once()})
    return await _form(visit, form, policy, by_link=bool(filled))


async def make(visit: Visit) -> Answer:
    """Makes the key and shows it."""
    fields = visit.fields
    form = Form(fields, several={"permission": visit.several("permission")})
    policy = await visit.ask(get_key_policy, Empty())
    name = fields.get("name", "").strip()
    expires = expiry(fields, visit.now) if policy.custom_expiry else {}
    # Both are told at once, if both are wrong.
    if not name:
        form.refuse(visit, Failure("INVALID_NAME_LENGTH"))
    if isinstance(expires, Failure):
        form.refuse(visit, expires)
    if form.errors or isinstance(expires, Failure):
        return await _form(visit, form, policy, status=400)
    try:
        visit.facts = msgspec.structs.replace(visit.facts, idempotency_key=_once(fields))
        asked = checked(
            CreateKey,
            {
                "config_id": policy.config_id,
                "name": name,
                "description": fields.get("description", "").strip() or None,
                **expires,
                "prefix": fields.get("prefix") or None,
                "permissions": permissions(visit, policy),
                "ip_allow": fields.get("networks", "").replace(",", "\n").split(),
            },
        )
        await confirm(visit)
        made = await visit.ask(create_api_key, asked)
    except Failure as failure:
        if failure.code == "IDEMPOTENCY_KEY_REUSED":  # changed, after it made a key
            form.values["once"] = once()
        status = form.refuse(visit, failure)
        return await _form(visit, form, policy, status=status)
    return visit.html("revealed.html", key=made, rotated=False)


async def _form(
    visit: Visit, form: Form, policy: KeyPolicy, *, status: int = 200, by_link: bool = False
) -> Answer:
    ask_password = "SESSION_NOT_FRESH" if await must_confirm(visit) else ""
    return visit.html(
        "key-new.html",
        status=status,
        by_link=by_link,
        form=form,
        dates=dates(visit.now, policy),
        lifetimes=lifetimes(visit.now, policy),
        must_confirm=bool(ask_password),
        policy=policy,
        suggested=_suggested(policy),
    )


def lifetimes(now: int, policy: KeyPolicy) -> list[Lifetime]:
    """The choices, with the dates that they mean."""
    return [
        Lifetime(
            days=days,
            at=now + int(days) * DAY_MS,
            allowed=int(days) * DAY_MS <= policy.max_lifetime * 1000,
        )
        for days in LIFETIMES
    ]


def _suggested(policy: KeyPolicy) -> str:
    """The choice that is made unless somebody makes another."""
    usual = str(policy.default_lifetime * 1000 // DAY_MS)
    if usual in LIFETIMES:
        return usual
    allowed = [days for days in LIFETIMES if int(days) * DAY_MS <= policy.max_lifetime * 1000]
    return "30" if "30" in allowed else (allowed or ["date"])[-1]


def expiry(fields: dict[str, str], now: int) -> dict[str, object] | Failure:
    """When a key ends, by the form, as fields of an input; none where it stays as it is.

    A number of days is not made an instant here: a form that is sent again asks for the same.
    A date that is none, or is over, is a failure.
    """
    choice = fields.get("expires", "")
    if choice == "keep":
        return {}
    if choice == "never":
        return {"expires_in": None}
    if choice in LIFETIMES:
        return {"expires_in": int(choice) * DAY_MS // 1000}
    try:
        ends = parse_iso(f"{fields.get('date', '')}T23:59:59.999Z")  # to the end of that day
    except ValueError:
        ends = 0
    return {"expires_at": iso(ends)} if ends > now else Failure("EXPIRES_IN_IS_TOO_SMALL")


def permissions(visit: Visit, policy: KeyPolicy) -> dict[str, list[str]] | UnsetType | None:
    """The permissions by the form: those that are ticked, or what a preset stands for."""
    if policy.permissions is None:
        return UNSET
    preset = visit.fields.get("preset", "custom")
    if preset == "all":
        return policy.permissions
    if preset == "read":
        reading = {
            resource: [action for action in actions if action in _READING]
            for resource, actions in policy.permissions.items()
        }
        return {resource: actions for resource, actions in reading.items() if actions}
    ticked: dict[str, list[str]] = {}
    for permission in visit.several("permission"):
        resource, _, action = permission.partition(":")
        ticked.setdefault(resource, []).append(action)
    return ticked


def _once(fields: dict[str, str]) -> str | None:
    name = fields.get("once", "")
    return name if 1 <= len(name) <= 64 and name.isalnum() else None


def dates(now: int, policy: KeyPolicy) -> tuple[str, str]:
    """The first and the last day that a key may live to the end of."""
    past_the_last = now + policy.max_lifetime * 1000 + 1
    return iso(now)[:10], iso(past_the_last - past_the_last % DAY_MS - 1)[:10]
