"""Databases full of keys."""

import os
from typing import Any

from keybearer import Auth, api_key
from keybearer.adapters.sql.database import migrate, open_database
from keybearer.adapters.sql.tables import api_key_secrets, api_keys
from keybearer.domain.credentials import PepperRing, mint
from keybearer.domain.ids import new_id
from keybearer.domain.ports import Transaction

SECRET = "benchmarks-only-" + "Zq8vT3mX1cR7nB5kW9yL2dF6"
_CHUNK = 5_000


def auth_on(database: str, **settings: Any) -> Auth:
    """A keybearer without accounts, whose keys may be used without end."""
    return Auth(
        database,
        plugins=[api_key(rate_limit="1000000000/1m")],
        accounts=False,
        secret=SECRET,
        **settings,
    )


async def make_keys(
    database: str, count: int, *, kept: int = 1_000, limited: bool = True
) -> list[str]:
    """Fills a database with `count` keys of many owners; gives up to `kept` of them."""
    opened, _ = open_database(database)
    await migrate(opened)
    ring = PepperRing([SECRET.encode()])
    shown: list[str] = []
    stride = max(1, count // kept)
    for first in range(0, count, _CHUNK):
        keys, digests = [], []
        for number in range(first, min(count, first + _CHUNK)):
            secret = mint("kb_", os.urandom).reveal()
            if number % stride == 0 and len(shown) < kept:
                shown.append(secret)
            id = new_id(1_790_000_000_000 + number, os.urandom(10))
            keys.append(_row(id, number, secret, limited=limited))
            digests.append(
                {
                    "digest": ring.digest(secret.encode()),
                    "key_id": id,
                    "pepper_id": ring.newest.id,
                    "created_at": 1_790_000_000_000,
                    "usable_until": None,
                }
            )

        async def body(tx: Transaction, keys=keys, digests=digests) -> None:  # type: ignore[no-untyped-def]
            await tx.run_many(api_keys.insert(), keys)
            await tx.run_many(api_key_secrets.insert(), digests)

        await opened.write(body)
    await opened.close()
    return shown


def _row(id: str, number: int, secret: str, *, limited: bool) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(
        column.name for column in api_keys.c if column.server_default is None
    )
    return row | {
        "id": id,
        "owner_id": f"owner-{number // 5}",
        "config_id": "default",
        "name": f"key {number}",
        "prefix": "kb_",
        "start": secret[:7],
        "enabled": True,
        "created_at": 1_790_000_000_000 + number,
        "updated_at": 1_790_000_000_000 + number,
        "created_by": "benchmark",
        "rate_limit_enabled": limited,
        "rate_limit_max": 1_000_000_000,
        "rate_limit_window_ms": 60_000,
        "request_count": 0,
        "quota_version": 0,
    }
