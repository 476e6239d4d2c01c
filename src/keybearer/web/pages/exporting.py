"""Keys as files: CSV (RFC 4180) and JSON, without secrets."""

import csv
import io
from collections.abc import Sequence

import msgspec

from keybearer.operations.keywire import ApiKey

COLUMNS = (
    "id",
    "name",
    "description",
    "start",
    "status",
    "enabled",
    "createdAt",
    "updatedAt",
    "expiresAt",
    "revokedAt",
    "lastRequest",
    "lastUsedIp",
    "lastUsedUserAgent",
    "requestCount",
    "permissions",
    "ipAllow",
)
# A cell that begins so is a formula to a spreadsheet (ASVS 1.2.10).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def as_csv(keys: Sequence[ApiKey]) -> bytes:
    """A table with a header, in UTF-8 with the mark that spreadsheets look for."""
    written = io.StringIO()
    table = csv.writer(written)
    table.writerow(COLUMNS)
    for key in keys:
        record: dict[str, object] = msgspec.to_builtins(key)
        record["permissions"] = " ".join(
            f"{resource}:{action}"
            for resource, actions in (key.permissions or {}).items()
            for action in actions
        )
        record["ipAllow"] = " ".join(key.ip_allow)
        table.writerow([_cell(record[name]) for name in COLUMNS])
    return written.getvalue().encode("utf-8-sig")


def as_json(keys: Sequence[ApiKey]) -> bytes:
    """The records, as the API gives them."""
    return msgspec.json.format(msgspec.json.encode({"apiKeys": keys}), indent=2)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
