"""Ways to lose what the server needs, in earnest."""

from sqlalchemy import text

from keybearer.domain.ports import Transaction
from keybearer.operations.app import App


async def lose_database(app: App) -> None:
    """From here every read of the epoch and of the outbox fails, on either database."""

    async def body(tx: Transaction) -> None:
        await tx.run(text("DROP TABLE coherence"))
        await tx.run(text("DROP TABLE outbox"))

    await app.database.write(body)
