"""A cold check on PostgreSQL with ten million keys, beside one with ten thousand.

The keys that are asked for are ours and lie scattered among rows that the database makes itself;
the indexes are those of the schema, taken away while it is filled and made again after. It takes
some 8 GB for as long as it runs.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path

from benchmarks.in_process import cold
from benchmarks.keys import make_keys
from benchmarks.measure import Figure
from tests.servers import PostgresServer, run_postgres

_FEW, _MANY, _PARTS = 10_000, 10_000_000, 10
_ASKED = 1_000
_NEEDED_BYTES = 15 * 2**30

# What is in the way of filling: indexes and constraints, in the order in which they are made.
_CONSTRAINTS = """
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
           format('ALTER TABLE %s ADD CONSTRAINT %I %s',
                  conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE (conrelid IN ('api_keys'::regclass, 'api_key_secrets'::regclass)
           AND contype IN ('p', 'u', 'f'))
       OR confrelid = 'api_keys'::regclass
    ORDER BY contype = 'f'
"""
_INDEXES = """
    SELECT format('DROP INDEX %I', indexname), indexdef FROM pg_indexes
    WHERE tablename IN ('api_keys', 'api_key_secrets')
      AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""
_FILL = """
    INSERT INTO api_keys (id, owner_id, config_id, name, prefix, start, enabled, created_at,
                          updated_at, created_by, rate_limit_enabled, rate_limit_max,
                          rate_limit_window_ms, request_count)
    SELECT gen_random_uuid()::text, 'owner-' || n / 5, 'default', 'key ' || n, 'kb_', 'kb_abcd',
           true, 1790000000000 + n, 1790000000000 + n, 'benchmark', true, 1000000000, 60000, 0
    FROM generate_series({first}, {last}) AS n
"""
_FILL_SECRETS = """
    INSERT INTO api_key_secrets (digest, key_id, pepper_id, created_at)
    SELECT sha256(id::bytea), id, (SELECT pepper_id FROM api_key_secrets LIMIT 1), created_at
    FROM api_keys WHERE NOT EXISTS (SELECT FROM api_key_secrets WHERE key_id = api_keys.id)
"""


def figures(_folder: Path) -> list[Figure]:
    """Every figure of this page."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < _NEEDED_BYTES:
        raise RuntimeError(f"ten_million needs 15 GB of disk, and {free / 2**30:.0f} are free")
    with run_postgres(
        shared_buffers="1GB", maintenance_work_mem="1GB", work_mem="512MB", max_wal_size="16GB"
    ) as server:
        return asyncio.run(_measure(server))


async def _measure(server: PostgresServer) -> list[Figure]:
    few, many = server.create(), server.create()
    few_keys = await make_keys(few, _FEW)
    many_keys = await _fill(server, many)
    return await cold("PostgreSQL", few, few_keys, many, many_keys, how_many="10 M")


async def _fill(server: PostgresServer, database: str) -> list[str]:
    """Ten million keys; gives those of them that are ours."""
    keys = await make_keys(database, _ASKED // _PARTS, kept=_ASKED)
    in_the_way = [
        line.split("|", 1)
        for query in (_INDEXES, _CONSTRAINTS)
        for line in server.execute(query, url=database).splitlines()
    ]
    for drop, _ in reversed(in_the_way):
        server.execute(drop, url=database)
    part = _MANY // _PARTS
    for number in range(_PARTS):
        fill = _FILL.format(first=number * part, last=(number + 1) * part - 1)
        server.execute(fill, url=database)
        if number:
            keys += await make_keys(database, _ASKED // _PARTS, kept=_ASKED)
    server.execute(_FILL_SECRETS, url=database)
    constraints_first = sorted(in_the_way, key=lambda each: each[1].startswith("CREATE"))
    for _, make in constraints_first:
        server.execute(make, url=database)
    server.execute("VACUUM (ANALYZE) api_keys", url=database)
    server.execute("VACUUM (ANALYZE) api_key_secrets", url=database)
    return keys
