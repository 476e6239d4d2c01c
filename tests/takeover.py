"""Ways in which a process loses the serving lock without ending."""

from pathlib import Path

from tests.servers import PostgresServer

_KILL = (
    "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_locks "
    "JOIN pg_database d ON d.oid = database "
    "WHERE locktype = 'advisory' AND granted AND d.datname = '{}'"
)


def lose_lock(url: str, server: PostgresServer | None) -> None:
    """Somebody deletes the lock's file; or the server ends the session that has the lock."""
    if server is None:
        Path(url.removeprefix("sqlite:///") + "-serving").unlink()
    else:
        assert int(server.execute(_KILL.format(url.rpartition("/")[2]))) == 1
