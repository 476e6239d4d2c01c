"""What an import brought before there was a table of it is told by the trail."""

import importlib
import json
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations


def test_what_came_before_is_remembered() -> None:
    step: Any = importlib.import_module(
        "keybearer.adapters.sql.migrations.versions.0011_what_was_imported"
    )
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE audit (event text, target_id text, details text)"))
        for event, id in (("user.imported", "1"), ("key.imported", "k"), ("key.created", "x")):
            connection.execute(
                sa.text("INSERT INTO audit VALUES (:event, :id, :details)"),
                {"event": event, "id": id, "details": json.dumps({"origin": "django"})},
            )
        with Operations.context(MigrationContext.configure(connection)):
            step.upgrade()
        rows = connection.execute(sa.text("SELECT origin, sort, id FROM imported ORDER BY sort"))
        assert [tuple(row) for row in rows] == [("django", "key", "k"), ("django", "user", "1")]
    engine.dispose()
