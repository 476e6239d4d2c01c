"""What goes where: answers and secrets to stdout, words to stderr.

A command that makes a secret prints it to stdout alone, so that `KEY=$(keybearer keys create …)`
works. What a command was asked to show is its answer, and goes to stdout. Whatever else there is
to say, refusals among it, goes to stderr.
"""

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


def command(group: click.Group | None, name: str) -> Callable[[Any], click.Command]:
    """Makes a click command of an async function, with `--json`.

    What keybearer raises on purpose becomes one line on stderr and exit code 1; with `--json`
    that line is JSON.
    """

    def declare(function: Callable[..., Coroutine[Any, Any, None]]) -> click.Command:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            with refusals(as_json=bool(given.get("as_json"))):
                asyncio.run(function(**given))

        with_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(run)
        made = click.command(name)(with_json)
        if group is not None:
            group.add_command(made)
        return made

    return declare


class refusals:  # noqa: N801 -- a context manager reads as a word
    """Turns what keybearer raises on purpose into one line and exit code 1."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        from keybearer.domain.errors import Failure, KeybearerError, Unavailable

        if not isinstance(error, KeybearerError):
            return
        code, text = "MISUSE", str(error)
        if isinstance(error, Failure):
            code, text = error.code, error.message
        elif isinstance(error, Unavailable):
            code, text = error.code, error.reason
            if code == "REVOCATION_PENDING":
                text = f"{error.message} ({error.reason})"
        fail(text, code=code, as_json=self._as_json)


def fail(text: str, *, code: str = "FAILED", as_json: bool = False) -> None:
    """Says why in one line on stderr, and ends with exit code 1."""
    line = visible(" ".join(text.split()))
    say(encode({"code": code, "message": line}) if as_json else f"keybearer: {line}")
    sys.exit(1)


def say(text: str) -> None:
    """Words for the person, on stderr."""
    click.echo(text, err=True)


def answer(text: str) -> None:
    """What was asked for, or a secret: on stdout."""
    click.echo(text)


def encode(value: object) -> str:
    """A value as JSON, as the API would send it."""
    import msgspec

    return msgspec.json.encode(value).decode()


def table(heads: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    """Columns for a terminal; what others wrote cannot drive it."""
    lines = [list(heads), *([visible(cell or "–") for cell in row] for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def visible(text: str) -> str:
    """Text whose control and direction characters are spelled out."""
    return "".join(
        char if char.isprintable() or char == " " else ascii(char)[1:-1] for char in text
    )


def receipt(nodes: int, waited_ms: int) -> str:
    """How a change ended, for the person who must rely on it."""
    if nodes == 0:
        return "nobody serves this database now"
    processes = "1 process" if nodes == 1 else f"{nodes} processes"
    return f"stopped on {processes} after {waited_ms / 1000:.1f} s"


def stdin_line(what: str) -> str:
    """One line from stdin, asked for without echo where a person types it.

    Raises:
        UsageError: nothing came.
    """
    stream = sys.stdin
    text = click.prompt(what, hide_input=True, err=True) if stream.isatty() else stream.readline()
    line = str(text).rstrip("\r\n")
    if not line:
        raise click.UsageError(f"{what} is read from stdin, and nothing came")
    return line
