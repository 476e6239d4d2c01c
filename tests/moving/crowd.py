"""A Better Auth database of many: people and keys as the real one writes them.

python -m tests.moving.crowd FILE.db 10000 50000
"""

import base64
import hashlib
import sqlite3
import sys
from pathlib import Path

HERE = Path(__file__).parent
_AT = "2026-11-18T11:00:00.000Z"
_HASH = "2a7421ed21035658f3dea214904722eb:" + "0" * 128


def key_of(n: int) -> str:
    """The key with that number."""
    digits = hashlib.sha256(b"crowd %d" % n).hexdigest()
    return digits.translate(str.maketrans("0123456789", "ghijklmnop"))


def digest_of(key: str) -> str:
    """How Better Auth stores it."""
    return base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()).decode().rstrip("=")


def build(path: Path, people: int, keys: int) -> None:
    """Writes the database."""
    with sqlite3.connect(path) as connection:
        dump = (HERE / "better_auth.sql").read_text().splitlines()
        for line in dump:
            if line.startswith(("CREATE TABLE", "CREATE INDEX", "CREATE UNIQUE")):
                connection.execute(line)
        ids = [f"person{n:026}" for n in range(people)]
        connection.executemany(
            'INSERT INTO "user" (id, name, email, emailVerified, createdAt, updatedAt) '
            "VALUES (?, ?, ?, 1, ?, ?)",
            [(id, f"Person {n}", f"person{n}@example.com", _AT, _AT) for n, id in enumerate(ids)],
        )
        connection.executemany(
            "INSERT INTO account (id, accountId, providerId, userId, password, createdAt, "
            "updatedAt) "
            "VALUES (?, ?, 'credential', ?, ?, ?, ?)",
            [(f"account{n:025}", id, id, _HASH, _AT, _AT) for n, id in enumerate(ids)],
        )
        connection.executemany(
            "INSERT INTO apikey (id, configId, name, start, referenceId, key, enabled, "
            "rateLimitEnabled, rateLimitTimeWindow, rateLimitMax, requestCount, createdAt, "
            "updatedAt, permissions, metadata) "
            "VALUES (?, 'default', ?, ?, ?, ?, 1, 1, 86400000, 10, 0, ?, ?, ?, 'null')",
            [
                (f"key{n:029}", f"key {n}", key_of(n)[:6], ids[n % people], digest_of(key_of(n)),
                 _AT, _AT, '{"files":["read"]}')
                for n in range(keys)
            ],
        )  # fmt: skip


if __name__ == "__main__":
    build(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
