"""The wrongs are the ones that the table lists, and the right code comes back after each."""

import ast
from pathlib import Path

import pytest

from tests.mutants.operators import mutants


def wrongs(code: str) -> list[str]:
    """What is made of some code, as its first lines."""
    return [each.id.partition(": ")[2] for each in mutants("m.py", ast.parse(code))]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("if a < b: f()", ["True", "False", "a <= b"]),
        ("if a == b: f()", ["True", "False"]),
        ("if not a: f()", ["True", "False"]),
        ("while a and b: f()", ["b", "a"]),
        ("f(a != b)", ["a == b"]),
        ("f(0 <= a < b)", ["0 < a < b", "0 <= a <= b", "1 <= a < b"]),
        ("f(not a)", ["a"]),
        ("f(a + b)", ["a - b"]),
        ("a += b", ["a -= b"]),
        ("f(b if a else c)", ["b if True else c", "b if False else c"]),
        ("f(1, True, 'x', b'x')", ["2", "False", "'xXX'", "b'xXX'"]),
        ("f(a[b:c])", ["a[:c]", "a[b:]"]),
        ("f(a, key=b)", ["f(a)"]),
        ("x = a", ["x = None"]),
        ("raise", ["pass"]),
        ("del a", ["pass"]),
        ("f(lambda: a)", ["lambda: None"]),
        ("for a in b:\n    continue", ["break"]),
        ("for a in b:\n    break", ["continue"]),
        ("def g():\n    return a", ["return None"]),
    ],
)
def test_each_place_has_its_wrongs(code: str, expected: list[str]) -> None:
    made = wrongs(code)
    for each in expected:
        assert any(each in said.partition("→")[2] for said in made), (each, made)
    emptied = [said for said in made if said.endswith("`pass`")]
    assert len(made) == len(expected) + len(emptied) - ("pass" in expected)


@pytest.mark.parametrize(
    "code",
    [
        '"""Words."""',
        "import a",
        "from a import b as c",
        "Kind = Literal['a', 'b']",
        "Either = A | B",
        "T = TypeVar('T')",
        "x: int",
        "__slots__ = ('a',)",
        "class A(Protocol):\n    def f(self) -> int:\n        return 1 + 1",
        "class A(Struct, frozen=True, kw_only=True, gc=False):\n    a: int",
        "@cache(size=5)\ndef f() -> 'A':\n    pass",
        "if TYPE_CHECKING:\n    a = 1",
    ],
)
def test_some_places_are_left_alone(code: str) -> None:
    assert wrongs(code) == []


def test_sentences_and_the_facts_of_an_event_are_left_alone() -> None:
    assert wrongs("raise Misuse('too long', f'{a} b c')") == [
        "`raise Misuse('too long', f'{a} b c')` → `pass`"
    ]
    assert wrongs("log.info('key.revoked', extra={'a': 1})") == [
        "`log.info('key.revoked', extra={'a': 1})` → `pass`"
    ]
    assert wrongs("raise Failure('CODE')")[1:] == [
        "`raise Failure('CODE')` → `raise Failure('CODEXX')`"
    ]


def test_the_right_code_comes_back_after_each() -> None:
    code = "def f(a: int = 1) -> int:\n    '''Words.'''\n    return a + 1 if a < 2 else g(a, b=[3])"
    tree = ast.parse(code)
    before = ast.dump(tree)
    found = mutants("m.py", tree)
    assert {mutant.within for mutant in found} == {True, False}
    assert len({mutant.id for mutant in found}) == len(found)
    codes = {mutant.compiled(tree, Path("m.py")).co_consts for mutant in found}
    assert len(codes) > 1
    assert ast.dump(tree) == before
