"""Every word in every language: whole, well-formed, and none that nobody says."""

import ast
import gettext
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po

from keybearer.adapters.languages import language
from keybearer.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "keybearer"
TAGS = tuple(tag for tag in Settings().locales if tag != "en")
COUNTS = (*range(201), 1_000_000, 2_000_000)
"""Enough numbers for every plural form that one of our languages has."""

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""What turns the direction of text; nobody sees it, and one too many turns the rest of a page."""


def catalog(tag: str) -> Catalog:
    with (SOURCE / "locales" / f"{tag}.po").open("rb") as file:
        return read_po(file, locale=tag.replace("-", "_"), abort_invalid=True)


def messages(tag: str) -> list[Message]:
    return [message for message in catalog(tag) if message.id]


def ids(message: Message) -> tuple[str, ...]:
    return (message.id,) if isinstance(message.id, str) else tuple(message.id)


def forms(message: Message) -> tuple[str, ...]:
    string = message.string or ""
    return (string,) if isinstance(string, str) else tuple(string)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_the_files_have_every_message_of_the_code_and_no_other() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "messages", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_there_is_a_file_for_each_language_and_no_other() -> None:
    files = {file.stem for file in (SOURCE / "locales").iterdir()}
    assert files == set(TAGS)


def said() -> Iterator[tuple[str, ast.expr]]:
    for file in SOURCE.rglob("*.py"):
        if "cli" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            words: list[ast.expr] = []
            if isinstance(node.func, ast.Name) and node.func.id in ("say", "N_", "_"):
                words = node.args[:1]
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "plural":
                words = node.args[:2]
            yield from ((f"{file.name}:{node.lineno}", word) for word in words)


def test_no_message_is_put_together_where_it_is_said() -> None:
    """What is not plain text in the code is found by nobody, and never translated."""
    assert {where for where, word in said() if isinstance(word, ast.JoinedStr | ast.BinOp)} == set()
    assert any(isinstance(word, ast.Constant) for _, word in said())


@pytest.mark.parametrize("tag", TAGS)
def test_every_message_is_translated(tag: str) -> None:
    assert [message.id for message in messages(tag) if message.fuzzy] == []
    assert [message.id for message in messages(tag) if not all(forms(message))] == []


@pytest.mark.parametrize("tag", TAGS)
def test_what_counts_has_every_form_of_the_language(tag: str) -> None:
    number = catalog(tag).num_plurals
    for message in messages(tag):
        wanted = number if isinstance(message.id, tuple) else 1
        assert len(forms(message)) == wanted, message.id


@pytest.mark.parametrize("tag", TAGS)
def test_placeholders_are_those_of_the_message(tag: str) -> None:
    """A form that is for one number alone may say it in words, as "one key" does."""
    form_of = gettext.c2py(catalog(tag).plural_expr)
    for message in messages(tag):
        every = set[str]().union(*map(fields, ids(message)))
        for index, form in enumerate(forms(message)):
            numbers = [n for n in COUNTS if form_of(n) == index]
            may_lack = {"n"} if isinstance(message.id, tuple) and len(numbers) == 1 else set()
            assert every - may_lack <= fields(form) <= every, (message.id, form)


@pytest.mark.parametrize("tag", TAGS)
def test_placeholders_are_plain_names(tag: str) -> None:
    for message in messages(tag):
        for text in (*ids(message), *forms(message)):
            for _, name, spec, conversion in string.Formatter().parse(text):
                assert name is None or name.isidentifier(), text
                assert not spec, text
                assert conversion is None, text


@pytest.mark.parametrize("tag", TAGS)
def test_spaces_around_a_message_are_the_same(tag: str) -> None:
    for message in messages(tag):
        paragraphs = ids(message)[0].count("\n\n")
        for text in (*ids(message), *forms(message)):
            assert text == text.strip(), text
            assert text.count("\n\n") == paragraphs, text


@pytest.mark.parametrize("tag", TAGS)
def test_no_translation_turns_the_direction_of_text(tag: str) -> None:
    text = (SOURCE / "locales" / f"{tag}.po").read_text("utf-8")
    assert [f"U+{ord(char):04X}" for char in BIDI if char in text] == []


@pytest.mark.parametrize("tag", TAGS)
def test_each_language_says_its_own_words(tag: str) -> None:
    say = language(tag)
    assert say.tag == tag
    written = {message.id: message.string for message in messages(tag)}
    assert say("Choose your password") == written["Choose your password"]
    assert say("Choose your password") != "Choose your password"
