"""What is public is a list, and each name on it can be had."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import keybearer

PUBLIC = {
    *("Auth", "Pages", "api_key", "bearer", "jwt"),
    *("Session", "Refusal", "Anonymous"),
    *("KeybearerError", "Failure", "Unavailable", "Misuse"),
}


def test_the_public_names_are_these() -> None:
    assert set(dir(keybearer)) == {*PUBLIC, "__version__"}
    assert set(keybearer.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(keybearer, name).__doc__


def test_a_star_brings_each_of_them() -> None:
    code = "from keybearer import *; print(*sorted(n for n in globals() if not n.startswith('_')))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(ran.stdout.split()) == PUBLIC


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(keybearer.__file__).read_text("utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == PUBLIC


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = keybearer.nothing


def test_importing_the_package_imports_no_database() -> None:
    code = "import sys, keybearer; print('sqlalchemy' in sys.modules, 'starlette' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["False", "False"]
