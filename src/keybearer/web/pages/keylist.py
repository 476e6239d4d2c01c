"""The list of keys: filtered, sorted and paged by its URL; many at once; as a file."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from keybearer.domain.errors import Failure
from keybearer.domain.permissions import parse_needs
from keybearer.operations.calendar import get_calendar
from keybearer.operations.declaration import Empty
from keybearer.operations.keybulk import (
    RevokeKeys,
    UpdateKeys,
    revoke_api_keys,
    update_api_keys,
)
from keybearer.operations.keypolicy import get_key_policy, summarize_keys
from keybearer.operations.keys import ListKeys, list_api_keys
from keybearer.operations.keywire import ApiKey
from keybearer.operations.reports import AskDailyUsage, daily_usage
from keybearer.settingvalues import DAY_MS
from keybearer.web.pages import charts, exporting
from keybearer.web.pages.forms import Form, checked, confirm, must_confirm
from keybearer.web.pages.visit import Answer, Visit
from keybearer.web.pages.words import REASONS, STATUSES

PAGE_SIZES = ("25", "50", "100")
SORTS: Mapping[str, str] = {
    "name": "name",
    "status": "status",
    "used": "lastRequest",
    "expires": "expiresAt",
    "created": "createdAt",
}
"""What the columns are called in the URL, and in the API."""

EXPIRES = ("7", "30", "90")
UNUSED = ("7", "30", "90")
_DAY_SECONDS = DAY_MS // 1000
_EXPORT_PAGE = 100
MAX_KEYS = 100
"""That can be changed at once; as many as a page shows."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL asks of the list; what it asks in vain is left out."""

    q: str = ""
    status: str = ""
    expires: str = ""
    unused: str = ""
    permission: str = ""
    sort: str = "created"
    dir: str = "desc"
    size: str = "25"
    page: int = 1

    @property
    def narrow(self) -> bool:
        """Whether some keys may be left out."""
        return bool(self.q or self.status or self.expires or self.unused or self.permission)

    def query(self, **changes: str | int) -> dict[str, str]:
        """The URL's fields, with some changed; what is as usual is left out."""
        usual = msgspec.structs.asdict(Filters())
        told = {**msgspec.structs.asdict(self), **changes}
        return {name: str(value) for name, value in told.items() if value != usual[name]}

    def sorted_by(self, column: str) -> dict[str, str]:
        """The URL's fields for a click on a column: sorted by it, or the other way round."""
        first = "desc" if column in ("created", "used") else "asc"
        other = {"asc": "desc", "desc": "asc"}[self.dir]
        return self.query(sort=column, dir=other if column == self.sort else first, page=1)

    def asked(self, *, limit: int, offset: int) -> ListKeys:
        """The same for the API."""
        return checked(
            ListKeys,
            {
                "limit": limit,
                "offset": offset,
                "sort_by": SORTS[self.sort],
                "sort_direction": self.dir,
                "status": (self.status,) if self.status else (),
                "search": self.q,
                "expiring_within": int(self.expires) * _DAY_SECONDS if self.expires else UNSET,
                "unused_for": int(self.unused) * _DAY_SECONDS if self.unused else UNSET,
                "permission": self.permission,
            },
        )


def filters_of(query: Mapping[str, str]) -> Filters:
    """The filters of a URL, whatever stands in it."""
    page = query.get("page", "1")
    return Filters(
        q=query.get("q", "").strip()[:100],
        status=_one_of(query.get("status"), tuple(STATUSES)),
        expires=_one_of(query.get("expires"), EXPIRES),
        unused=_one_of(query.get("unused"), UNUSED),
        permission=_permission(query.get("permission", "")),
        sort=_one_of(query.get("sort"), tuple(SORTS)) or "created",
        dir=_one_of(query.get("dir"), ("asc", "desc")) or "desc",
        size=_one_of(query.get("size"), PAGE_SIZES) or "25",
        page=int(page) if page.isascii() and page.isdigit() and 1 <= len(page) <= 4 else 1,
    )


def _permission(text: str) -> str:
    try:
        return text if len(parse_needs(text)) == 1 else ""
    except ValueError:
        return ""


def _one_of(value: str | None, allowed: tuple[str, ...]) -> str:
    return value if value in allowed else ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A key in the list, with its last thirty days."""

    key: ApiKey
    spark: str
    requests: int


async def show(visit: Visit) -> Answer:
    """The list."""
    filters = filters_of(visit.query)
    size = int(filters.size)
    found = await visit.ask(
        list_api_keys, filters.asked(limit=size, offset=(max(1, filters.page) - 1) * size)
    )
    last = max(1, -(-found.total // size))
    if filters.page > last or filters.page < 1:
        return visit.go(visit.url(visit.page, **filters.query(page=last)))
    days = await visit.ask(
        daily_usage, AskDailyUsage(key_id=tuple(key.id for key in found.api_keys))
    )
    nothing: list[int] = []
    rows = [
        Row(
            key=key,
            spark=charts.sparkline(days.keys.get(key.id, nothing)),
            requests=sum(days.keys.get(key.id, nothing)),
        )
        for key in found.api_keys
    ]
    return visit.html(
        "key-list.html",
        calendar=await visit.ask(get_calendar, Empty()),
        filters=filters,
        last=last,
        policy=await visit.ask(get_key_policy, Empty()),
        rows=rows,
        sizes=PAGE_SIZES,
        summary=await visit.ask(summarize_keys, Empty()),
        total=found.total,
    )


async def act(visit: Visit) -> Answer:
    """Enables, disables or revokes the selected keys; revoking asks once more."""
    ids = visit.several("key")
    action = visit.fields.get("action", "")
    if action not in ("enable", "disable", "revoke"):
        raise Failure("VALIDATION_ERROR")
    chosen = await _named(visit, ids)
    if not chosen:
        return visit.go(visit.here, notice="none-selected")
    if action == "revoke":
        return await _revoke(visit, chosen)
    return await _switch(visit, chosen, enabled=action == "enable")


async def _switch(visit: Visit, chosen: list[ApiKey], *, enabled: bool) -> Answer:
    form = Form()
    asked = checked(UpdateKeys, {"key_ids": [key.id for key in chosen], "enabled": enabled})
    try:
        await confirm(visit)
        done = await visit.ask(update_api_keys, asked)
    except Failure as failure:
        status = form.refuse(visit, failure)
        must = await must_confirm(visit)
        return visit.html(
            "enable-many.html",
            status=status,
            back=visit.here,
            form=form,
            keys=chosen,
            must_confirm=must,
        )
    if all(each.success for each in done.results):
        return visit.go(visit.here, notice="keys-enabled" if enabled else "keys-disabled")
    names = {key.id: key for key in chosen}
    return visit.html(
        "switched-many.html", back=visit.here, enabled=enabled, names=names, results=done.results
    )


async def _revoke(visit: Visit, chosen: list[ApiKey]) -> Answer:
    if "sure" not in visit.fields:
        return visit.html("revoke-many.html", keys=chosen, reasons=REASONS, back=visit.here)
    reason = visit.fields.get("reason", "")
    asked = checked(
        RevokeKeys,
        {
            "key_ids": [key.id for key in chosen],
            "reason": reason if reason in REASONS else None,
        },
    )
    receipt = await visit.ask(revoke_api_keys, asked)
    return visit.html("revoked.html", receipt=receipt, key=None, many=receipt.results)


async def _named(visit: Visit, ids: list[str]) -> list[ApiKey]:
    """The keys of these ids that are the caller's."""
    wanted = set(ids[:MAX_KEYS])
    return [key for key in await _every(visit, Filters()) if key.id in wanted] if wanted else []


async def _every(visit: Visit, filters: Filters) -> list[ApiKey]:
    keys: list[ApiKey] = []
    while True:
        found = await visit.ask(list_api_keys, filters.asked(limit=_EXPORT_PAGE, offset=len(keys)))
        keys += found.api_keys
        if not found.api_keys or len(keys) >= found.total:
            return keys


async def export(visit: Visit) -> Answer:
    """Every key that the filters leave, as CSV or JSON."""
    kind = visit.query.get("format", "csv")
    keys = await _every(visit, filters_of(visit.query))
    if kind == "json":
        return visit.file("api-keys.json", "application/json", exporting.as_json(keys))
    if kind != "csv":
        raise Failure("NOT_FOUND")
    return visit.file("api-keys.csv", "text/csv; charset=utf-8", exporting.as_csv(keys))
