"""Permissions are compared exactly: nothing near a permission is one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.errors import Misuse
from keybearer.domain.permissions import (
    ceiling,
    missing,
    parse,
    parse_catalogue,
    parse_needs,
    stated,
    to_wire,
)

names = st.text(alphabet="ab9_.-", min_size=1, max_size=64).map(lambda tail: "a" + tail[1:])
wires = st.dictionaries(names, st.lists(names, min_size=1, max_size=5), max_size=5)
sets = wires.map(parse)

BAD_NAMES = [
    "",
    "*",
    "a*",
    "A",
    "a b",
    " a",
    "a ",
    "a:b",
    "-a",
    ".a",
    "_a",
    "a\n",
    "é",
    "\uff41",
    "a" * 65,
]


@given(wires)
def test_the_wire_comes_back_sorted_and_without_repetition(wire: dict[str, list[str]]) -> None:
    back = to_wire(parse(wire))
    assert back == {resource: sorted(set(actions)) for resource, actions in wire.items()}
    assert list(back) == sorted(wire)
    assert parse(back) == parse(wire)


def test_resources_are_sorted_as_names() -> None:
    held = parse({"a-b": ["x"], "a": ["y"], "a.b": ["z"]})
    assert list(to_wire(held)) == ["a", "a-b", "a.b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="begins with a letter or a digit"):
        parse({name: ["read"]})
    with pytest.raises(ValueError, match="begins with a letter or a digit"):
        parse({"files": [name]})


@pytest.mark.parametrize("actions", ["read", [], ["read"] * 65])
def test_actions_are_a_list_of_1_to_64(actions: str | list[str]) -> None:
    with pytest.raises(ValueError, match="a list of 1 to 64 actions"):
        parse({"files": actions})


def test_64_resources_of_64_actions_are_the_most() -> None:
    actions = [f"a{number}" for number in range(64)]
    wire = {f"r{number}": actions for number in range(64)}
    assert len(parse(wire)) == 64 * 64
    with pytest.raises(ValueError, match="at most 64 resources"):
        parse({**wire, "r64": ["a"]})
    with pytest.raises(ValueError, match="at most 64 resources"):
        parse_catalogue(",".join(f"r{number}:a" for number in range(10_000)))


def test_too_many_resources_are_refused_before_the_rest_is_read() -> None:
    read = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            read.append(number)
            assert number < 100, "all of it is read"
            yield f"r{number}:a"

    with pytest.raises(ValueError, match="at most 64 resources"):
        parse_needs(endless())
    assert len(read) == 65


def test_what_is_said_again_is_not_counted_again() -> None:
    assert parse_needs(["files:read"] * 65) == {"files:read"}


def test_a_name_has_64_characters_at_the_most() -> None:
    assert parse({"a" * 64: ["b" * 64]}) == {"a" * 64 + ":" + "b" * 64}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        ("  ", set()),
        ("files:read", {"files:read"}),
        ("files:read,files:write", {"files:read", "files:write"}),
        (" files:read , files:read ", {"files:read"}),
    ],
)
def test_a_catalogue_is_a_list_with_commas(text: str, expected: set[str]) -> None:
    assert parse_catalogue(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "files",
        "files:",
        ":read",
        "a:b:c",
        "files:read,",
        "*:*",
        "files:*",
        "files:read;x:y",
        "X",
        "Xfiles:readX",
    ],
)
def test_what_is_no_list_of_permissions_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\."):
        parse_catalogue(text)
    with pytest.raises(ValueError, match=r"\."):
        parse_needs(text)
    with pytest.raises(ValueError, match=r"\."):
        parse_needs([text])


def test_needs_are_given_in_any_of_the_three_shapes() -> None:
    expected = {"files:read", "files:write"}
    assert parse_needs("files:read,files:write") == expected
    assert parse_needs(["files:write", "files:read"]) == expected
    assert parse_needs(iter(expected)) == expected
    assert parse_needs({"files": ["read", "write"]}) == expected


def test_no_needs_ask_for_nothing_but_an_empty_text_is_a_mistake() -> None:
    assert parse_needs(None) == parse_needs([]) == parse_needs({}) == frozenset()
    with pytest.raises(ValueError, match="as in files:read"):
        parse_needs("")


@pytest.mark.parametrize("mistake", ["", "Files:*", ["files"], {"files": "read"}, 5, [None]])
def test_a_mistake_in_the_apps_own_code_is_misuse(mistake: Any) -> None:
    with pytest.raises(Misuse, match=r"^Guard\(permissions=\): .*") as told:
        stated(mistake, "Guard(permissions=)")
    assert "\n" not in str(told.value)
    assert stated("files:read", "x") == {"files:read"}


@pytest.mark.parametrize(
    "held",
    ["files:rea", "files:read.all", "file:read", "files.a:read", "files:write", "read:files"],
)
def test_nothing_near_a_permission_is_that_permission(held: str) -> None:
    assert missing(parse_needs(held), parse_needs("files:read")) == {"files:read"}


@given(sets, sets)
def test_missing_and_ceiling_are_set_arithmetic(one: frozenset[str], other: frozenset[str]) -> None:
    assert missing(one, other) == {name for name in other if name not in one}
    assert not missing(one, ceiling(other, one))
    assert ceiling(one, other) <= one
    assert ceiling(one, other) <= other
    assert not missing(one | other, other)
