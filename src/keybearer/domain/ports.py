"""What the inside asks of the outside; each has two real implementations."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]


class Clock(Protocol):
    """One time for everything: expiry, limits and leases."""

    def now(self) -> int:
        """Milliseconds since the epoch, UTC; never steps, neither back nor forward."""
        ...


class Span(Protocol):
    """A stretch of work that somebody traces."""

    def tell(self, **facts: str | int) -> None:
        """Notes what came of it; never a credential."""
        ...


class Tracer(Protocol):
    """Tells whoever traces what happens here, and how long it takes."""

    def span(self, name: str) -> AbstractContextManager[Span]:
        """A span around a block; what the block raises is its outcome."""
        ...


class Row(Protocol):
    """A row of a result: columns as attributes."""

    def __getattr__(self, column: str) -> Any: ...


class Transaction(Protocol):
    """Runs statements; whatever a body awaits on it happens in one transaction."""

    @property
    def dialect(self) -> Dialect:
        """Whose SQL it speaks."""
        ...

    async def one(self, statement: object, /, **binds: object) -> Row | None:
        """The first row, or None."""
        ...

    async def all(self, statement: object, /, **binds: object) -> Sequence[Row]:
        """Every row."""
        ...

    async def run(self, statement: object, /, **binds: object) -> int:
        """Executes a change and gives the number of rows that it touched."""
        ...

    async def run_many(self, statement: object, rows: Sequence[Mapping[str, object]], /) -> None:
        """Executes one statement for many sets of binds."""
        ...


Body = Callable[[Transaction], Awaitable[T]]


class Reading(Protocol):
    """Of a database what only reads. Raises `Unavailable` when it is lost."""

    async def read(self, body: Body[T]) -> T:
        """Runs a body that only reads."""
        ...


class Database(Reading, Protocol):
    """SQLite or PostgreSQL. Every method raises `Unavailable` when it is lost."""

    @property
    def busy(self) -> int:
        """Writes that wait for the one writer of SQLite; PostgreSQL's connections in use."""
        ...

    async def write(self, body: Body[T], *, first: bool = False) -> T:
        """Runs a body and returns when its commit is durable; an exception rolls it back.

        A body awaits nothing but its transaction.

        Args:
            first: before all that wait: a row that the right to answer depends on.
        """
        ...

    async def close(self) -> None:
        """Waits for what is under way and lets go of the database."""
        ...
