"""What keybearer answers otherwise than Better Auth is what the manual says, and no more."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.better_auth.replay import captured, replay
from tests.better_auth.settings import SETTINGS

PAGE = Path(__file__).parent.parent.parent / "docs" / "better-auth.md"
PAIRS = captured()

Told = tuple[str, frozenset[int] | None, str]
"""A row of the table, the pairs (None: any), and what differs."""


def _told() -> Iterator[Told]:
    block = PAGE.read_text("utf-8").partition("## What the replay finds")[2]
    row = ""
    for line in block.partition("```text\n")[2].partition("```")[0].splitlines():
        if not line.startswith(" "):
            row = line
            continue
        pairs, _, marks = line.strip().partition(": ")
        numbers = None if pairs == "*" else frozenset(map(int, pairs.split()))
        yield from ((row, numbers, mark) for mark in marks.split(" | "))


TOLD = list(_told())


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, set[str]]:
    """How each answer differs."""
    marks: dict[int, set[str]] = {}
    for setting in SETTINGS:
        file = tmp_path_factory.mktemp("replay") / "keybearer.db"
        marks |= asyncio.run(replay(setting, PAIRS, f"sqlite:///{file}"))
    return marks


def test_every_pair_is_replayed(found: dict[int, set[str]]) -> None:
    assert len(PAIRS) == 273
    assert found.keys() == {pair.number for pair in PAIRS}


def test_what_differs_is_told(found: dict[int, set[str]]) -> None:
    untold = {}
    for pair in PAIRS:
        told = {mark for _, pairs, mark in TOLD if pairs is None or pair.number in pairs}
        untold[pair.number, pair.step] = found[pair.number] - told
    assert {pair: marks for pair, marks in untold.items() if marks} == {}


def test_what_is_told_differs(found: dict[int, set[str]]) -> None:
    outdated = []
    for row, pairs, mark in TOLD:
        differing = {number for number, marks in found.items() if mark in marks}
        if not differing or not (pairs or frozenset()) <= differing:
            outdated.append((row, pairs, mark))
    assert outdated == []


def test_what_is_found_has_its_row_in_the_table() -> None:
    table = re.findall(r"^\| ([^|]+?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert {row for row, _, _ in TOLD} <= set(table)
