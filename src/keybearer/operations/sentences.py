"""What an input takes, in words, for whoever sent another thing.

    Expected `int` <= 100 - at `$.limit`   ──▶   limit must be a whole number from 1 to 100.

msgspec says what is wrong and where; what would be right is read from the type at that place.
"""

import re
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from keybearer.domain.errors import Failure

_PLACE = re.compile(r" - at `\$([^`]*)`\Z")
_STEP = re.compile(r"\.([A-Za-z_]+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_LONGEST_NAME = 64


def refusal_of(error: msgspec.ValidationError, type_: type[Any], *, texts: bool) -> Failure:
    """The refusal of an input that is not one: which field, and what it takes.

    Args:
        type_: the struct that the input should have been.
        texts: whether it came as texts alone (a query, a form), which know no null and no lists.
    """
    found = _PLACE.search(str(error))
    said = str(error) if found is None else str(error)[: found.start()]
    place, type_there = _follow("" if found is None else found[1], inspect.type_info(type_))
    if texts:
        place = re.sub(r"\[\d+\]\Z", "", place)
    if missing := _MISSING.match(said):
        name = _joined(place, missing[1])
        words = _words(_field(type_there, missing[1]), texts=texts)
        return Failure("VALIDATION_ERROR", f"{name} is missing: it must be {words}.")
    if unknown := _UNKNOWN.match(said):
        return Failure("UNKNOWN_FIELD", _no_such_field(place, unknown[1], type_there))
    if not place:
        return Failure("VALIDATION_ERROR", "The body must be a JSON object.")
    return Failure("VALIDATION_ERROR", f"{place} must be {_words(type_there, texts=texts)}.")


@cache
def whole_numbers(type_: type[Any]) -> frozenset[str]:
    """The fields of an input that take a whole number, by their names on the wire."""
    fields = _fields(inspect.type_info(type_)).items()
    return frozenset(
        name
        for name, info in fields
        if any(isinstance(each, inspect.IntType) for each in _members(info))
    )


def _follow(path: str, info: inspect.Type) -> tuple[str, inspect.Type]:
    """The place that msgspec's path names, as one writes it, and the type there."""
    place = ""
    for name, index in _STEP.findall(path):
        if name:
            place, info = _joined(place, name), _field(info, name)
        elif index == "...":
            place, info = f"each value of {place}", _held(info)
        else:
            place, info = f"{place}[{index}]", _held(info)
    return place, info


def _held(info: inspect.Type) -> inspect.Type:
    """The type of what a list or a mapping holds."""
    for each in _members(info):
        if isinstance(each, inspect.DictType):
            return each.value_type
        if isinstance(each, inspect.ListType | inspect.VarTupleType):
            return each.item_type
    return inspect.AnyType()


def _fields(info: inspect.Type) -> dict[str, inspect.Type]:
    """The fields of a struct by their names on the wire."""
    for each in _members(info):
        if isinstance(each, inspect.StructType):
            return {field.encode_name: field.type for field in each.fields}
    return {}


def _field(info: inspect.Type, name: str) -> inspect.Type:
    return _fields(info).get(name, inspect.AnyType())


def _members(info: inspect.Type) -> tuple[inspect.Type, ...]:
    return info.types if isinstance(info, inspect.UnionType) else (info,)


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _no_such_field(place: str, name: str, info: inspect.Type) -> str:
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}…"
    takes = f"it takes {', '.join(_fields(info)) or 'none'}"
    return f"{place or 'The request'} has a field `{name}` that does not exist: {takes}."


# --- a type in words ------------------------------------------------------------------------


def _words(info: inspect.Type, *, texts: bool) -> str:
    """What a type takes, to stand after “must be”."""
    match info:
        case inspect.Metadata(type=inner, extra_json_schema=schema):
            said = (schema or {}).get("description")
            return said if isinstance(said, str) else _words(inner, texts=texts)
        case inspect.UnionType(types=types):
            members = [each for each in types if not (texts and each == inspect.NoneType())]
            return " or ".join(_words(each, texts=texts) for each in members)
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number{_between(least, most)}"
        case inspect.StrType(min_length=least, max_length=most):
            return f"text{_counted(least, most, 'character')}"
        case inspect.ListType(item_type=item, min_length=least, max_length=most):
            return f"a list{_counted(least, most, 'item')} (each {_words(item, texts=texts)})"
        case inspect.VarTupleType(item_type=item, max_length=most):
            each = _words(item, texts=texts)
            times = "" if most is None else f", at most {most} times"
            return f"{each}{times}" if texts else f"a list (each {each})"
        case inspect.DictType(value_type=value):
            return f"an object (each value {_words(value, texts=texts)})"
        case inspect.StructType():
            return f"an object with the fields {', '.join(_fields(info))}"
    return _PLAIN.get(type(info), "another value")


_PLAIN: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.FloatType: "a number",
    inspect.NoneType: "null",
}


def _between(least: int | None, most: int | None) -> str:
    if least is None:
        return "" if most is None else f" of at most {most}"
    return f" of {least} or more" if most is None else f" from {least} to {most}"


def _counted(least: int | None, most: int | None, what: str) -> str:
    if least is None and most is None:
        return ""
    if most is None:
        return f" of {least} {what}s or more"
    return f" of up to {most} {what}s" if not least else f" of {least} to {most} {what}s"
