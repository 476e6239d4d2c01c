"""A wrong outside of functions: in a process that has imported the libraries alone."""

import ast
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType

import pytest

from tests.mutants import pool
from tests.mutants.hunt import AT_ONCE, OPTIONS, SURVIVED, TIME, Tests
from tests.mutants.operators import Mutant
from tests.mutants.survey import PACKAGE, Survey

_LIBRARIES = (
    *("babel", "cryptography.x509", "httpx2", "hypothesis.stateful", "icalendar", "jinja2"),
    *("joserfc.jws", "msgspec", "sqlalchemy", "starlette.applications", "zxcvbn"),
)
"""What takes long to import."""


def hunt(
    survey: Survey,
    trees: dict[str, ast.Module],
    mutants: Sequence[Mutant],
    tell: Callable[[Mutant, str], None],
) -> None:
    """Try each, and tell what came of it."""
    for library in _LIBRARIES:
        importlib.import_module(library)

    def jobs() -> Iterator[Callable[[], str]]:
        for mutant in mutants:
            yield partial(_try, survey, trees[mutant.module], mutant)

    for number, said in pool.run(jobs(), at_once=AT_ONCE):
        tell(mutants[number], said or TIME)


class _Loader(SourceFileLoader):
    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class _Finder(MetaPathFinder):
    def __init__(self, name: str, code: CodeType) -> None:
        self._name = name
        self._code = code

    def find_spec(
        self, fullname: str, path: object, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        file = self._code.co_filename
        loader = _Loader(fullname, file)
        loader.code = self._code
        return spec_from_file_location(fullname, file, loader=loader)


class _Chosen(Tests):
    """The tests in the order they are to run."""

    def __init__(self, survey: Survey, chosen: Sequence[str]) -> None:
        super().__init__()
        self._survey = survey
        self._chosen = chosen
        self.said = "not imported"

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        known = {item.nodeid: item for item in session.items}
        items = [known[test] for test in self._chosen if test in known]
        other = next((item for item in session.items if item is not items[-1]), items[-1])
        self.said = self.first_failing(items, other, self._survey.seconds)
        return True


def _try(survey: Survey, tree: ast.Module, mutant: Mutant) -> str:
    path = PACKAGE / mutant.module
    name = ".".join(("keybearer", *path.relative_to(PACKAGE).with_suffix("").parts))
    sys.meta_path.insert(0, _Finder(name, mutant.compiled(tree, path)))
    chosen = survey.tests(mutant, None)
    if not chosen:
        return SURVIVED
    pool.limit(60)
    plugin = _Chosen(survey, chosen)
    files = sorted({test.split("::")[0] for test in chosen})
    pytest.main([*OPTIONS, *files], plugins=[plugin])
    return plugin.said
