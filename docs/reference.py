"""The parts of the manual that are made of the code, so that they cannot lag behind it.

A page says `<!-- made: operations -->` where such a part goes; `conf.py` puts it there when the
manual is built, and the tests read the same text.
"""

import enum
from collections.abc import Callable, Iterable, Iterator
from inspect import cleandoc
from itertools import groupby
from typing import Any

import click
import msgspec
from msgspec import inspect

from keybearer.cli.commands import keybearer
from keybearer.domain.errors import PROBLEMS
from keybearer.operations.declaration import Operation
from keybearer.plugins import ACCOUNTS, CORE, api_key, bearer, jwt

AnyOperation = Operation[Any, Any]

ORDER = ("API keys", "Verification", "Accounts", "Sessions", "Tokens", "Audit")
"""Groups of operations in the order of the page; others follow."""


def operations() -> list[AnyOperation]:
    """Every operation that there is, by group."""
    served = [*CORE, *ACCOUNTS]
    for plugin in (api_key(), bearer(), jwt()):
        served += plugin.operations
    return sorted(served, key=lambda each: (_place(each.tag), each.tag))


def _place(tag: str) -> int:
    return ORDER.index(tag) if tag in ORDER else len(ORDER)


# --- operations -----------------------------------------------------------------------------


def operations_text() -> str:
    """Every endpoint: who may call it, what it takes, what it answers, how it refuses."""
    lines: list[str] = []
    for tag, group in groupby(operations(), key=lambda each: each.tag):
        lines += [f"### {tag}", ""]
        for each in group:
            lines += _operation(each)
    return "\n".join(lines)


def _operation(each: AnyOperation) -> Iterator[str]:
    yield f"#### `{each.method} {each.path}`"
    yield ""
    yield each.summary
    yield ""
    if each.description:
        yield each.description
        yield ""
    yield f"- Who may: {each.access.value}."
    if each.aliases:
        others = ", ".join(f"`{method} {path}`" for method, path in each.aliases)
        yield f"- The same as: {others}."
    if each.management:
        yield "- 404 while `TOKEN_MANAGEMENT` is off."
    if each.redirects:
        yield "- With a `callbackURL` the answer is a redirect (302)."
    if each.form:
        yield "- Takes a form (`application/x-www-form-urlencoded`), not JSON."
    if each.forms:
        yield "- Takes a form (`application/x-www-form-urlencoded`) as well as JSON."
    if each.errors:
        yield "- Codes: " + ", ".join(f"`{code}`" for code in dict.fromkeys(each.errors)) + "."
    yield ""
    fields = msgspec.structs.fields(each.input)
    if fields:
        yield cleandoc(each.input.__doc__ or "")
        yield ""
        yield "| takes | type | |"
        yield "|---|---|---|"
        for field in fields:
            yield f"| `{field.encode_name}` | {_type(field.type)} | {_default(field)} |"
        yield ""
    answered = _type(each.output).removeprefix("object of ")
    if answered:
        yield f"Answers {answered}."
        yield ""


def _default(field: Any) -> str:
    if field.required:
        return "required"
    if field.default in (msgspec.UNSET, None, msgspec.NODEFAULT, "", ()):
        return ""
    value = field.default.value if isinstance(field.default, enum.Enum) else field.default
    return f"`{msgspec.json.encode(value).decode()}` unless given"


def _type(annotation: Any) -> str:
    return _words(inspect.type_info(annotation))


def _words(type_: inspect.Type) -> str:
    match type_:
        case inspect.Metadata():
            return _words(type_.type)
        case inspect.UnionType():
            named = [each for each in type_.types if _words(each)]
            return " or ".join(dict.fromkeys(_words(each) for each in named))
        case inspect.NoneType():
            return "null"
        case inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in type_.values)
        case inspect.StrType():
            return "text" + _bounds(type_.min_length, type_.max_length, "characters")
        case inspect.IntType():
            return "whole number" + _bounds(type_.ge, type_.le, "")
        case inspect.BoolType():
            return "true or false"
        case inspect.ListType() | inspect.VarTupleType():
            return f"list of {_words(type_.item_type)}"
        case inspect.DictType():
            return "object"
        case inspect.StructType():
            names = ", ".join(f"`{field.encode_name}`" for field in type_.fields)
            return f"object of {names}" if names else ""
        case inspect.AnyType() | inspect.CustomType():
            return "any JSON"
    return ""


def _bounds(low: int | None, high: int | None, unit: str) -> str:
    if high is None:
        return ""
    span = f"{low} to {high}" if low else f"up to {high}"
    return f", {span} {unit}".rstrip()


# --- errors ---------------------------------------------------------------------------------


def problems_text() -> str:
    """Every code with its status and its sentence."""
    lines = ["| status | code | message |", "|---|---|---|"]
    for code, row in sorted(PROBLEMS.items(), key=lambda item: item[1].status):
        lines.append(f"| {row.status} | `{code}` | {row.message} |")
    return "\n".join(lines)


# --- commands -------------------------------------------------------------------------------


def commands_text() -> str:
    """Every command with its help, as `--help` prints it."""
    lines: list[str] = []
    for path, command in commands():
        depth = "##" if " " not in path.removeprefix("keybearer ") else "###"
        context = click.Context(command, info_name=path)
        lines += [f"{depth} `{path}`", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command below `keybearer`, with the words that call it."""
    return _below("keybearer", keybearer.commands.items())


def _below(
    path: str, named: Iterable[tuple[str, click.Command]]
) -> Iterator[tuple[str, click.Command]]:
    for name, command in named:
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _below(f"{path} {name}", command.commands.items())


MADE: dict[str, Callable[[], str]] = {
    "operations": operations_text,
    "problems": problems_text,
    "commands": commands_text,
}


def expand(text: str) -> str:
    """A page with the parts that are made of the code."""
    for name, make in MADE.items():
        mark = f"<!-- made: {name} -->"
        if mark in text:
            text = text.replace(mark, make())
    return text
