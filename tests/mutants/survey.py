"""Which tests go through which lines, and how long each takes."""

import hashlib
import os
import pickle
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.operators import Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "keybearer"
STATE = ROOT / ".mutants"
"""What is known from earlier runs; it may be deleted."""

PATIENCE = float(os.environ.get("PATIENCE", "6"))
"""Seconds: how much of the tests are run against one wrong, the quickest first …"""
LONG = 2.5
"""… without those that take longer than this, where there are others."""

FIGURES = "/test_figures."
"""Where the tests of constants stand: they go through no line of a module."""


@dataclass
class Survey:
    """What was seen when all tests ran against the right code.

    Attributes:
        code: a digest of the code, and of what the tests share.
        files: a digest of each file of tests.
        seconds: of each test.
        lines: the tests that go through a line of a module.
    """

    code: str
    files: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)

    def forget(self, files: Iterable[str]) -> None:
        """Drop what is known of the tests of some files."""
        gone = {test for test in self.seconds if test.split("::")[0] in set(files)}
        for test in gone:
            del self.seconds[test]
        for lines in self.lines.values():
            for tests in lines.values():
                tests.difference_update(gone)

    def add(self, seconds: dict[str, float], lines: dict[str, dict[int, set[str]]]) -> None:
        """Take in what a part of the tests has shown."""
        self.seconds |= seconds
        for module, of_module in lines.items():
            known = self.lines.setdefault(module, defaultdict(set))
            for line, tests in of_module.items():
                known.setdefault(line, set()).update(tests)

    def tests(self, mutant: Mutant, first: str | None) -> list[str]:
        """The tests to run against a wrong: `first`, those of its module, the quickest."""
        known = self.lines.get(mutant.module, {})
        found: set[str] = set()
        if mutant.within:
            start, end = mutant.lines
            found = set().union(*(known.get(line, set()) for line in range(start, end + 1)))
            found = found or known.get(mutant.header, set())
        mirror = f"/test_{Path(mutant.module).stem}"
        if not found:
            beside = (mirror, FIGURES)
            found = {test for test in self.seconds if any(each in test for each in beside)}
            found |= self._speaking(mutant)
        quick = {test for test in found if self.seconds[test] <= LONG}
        order = sorted(
            quick or found,
            key=lambda test: (
                test != first,
                FIGURES not in test,
                mirror not in test,
                self.seconds[test],
                test,
            ),
        )
        spent = 0.0
        chosen: list[str] = []
        for test in order:
            spent += self.seconds[test]
            if chosen and spent > PATIENCE:
                break
            chosen.append(test)
        return chosen

    def _speaking(self, mutant: Mutant) -> set[str]:
        """The tests of the lines that name a constant, a class or a function."""
        found: set[str] = set()
        if not mutant.names:
            return found
        named = re.compile(rf"\b({'|'.join(sorted(map(re.escape, mutant.names)))})\b")
        for module, lines in self.lines.items():
            for number, text in enumerate((PACKAGE / module).read_text().splitlines(), 1):
                if number in lines and named.search(text):
                    found |= lines[number]
        return found

    def keep(self) -> None:
        """Write it down for the next run."""
        STATE.mkdir(exist_ok=True)
        (STATE / "survey").write_bytes(pickle.dumps(self))


def known() -> Survey:
    """The survey of an earlier run, as far as it still holds."""
    code = digest(
        path
        for folder in (PACKAGE, ROOT / "tests")
        for path in sorted(folder.rglob("*.py"))
        if not path.name.startswith("test_") and "mutants" not in path.parts
    )
    path = STATE / "survey"
    survey = pickle.loads(path.read_bytes()) if path.exists() else None  # noqa: S301 -- our own
    if not isinstance(survey, Survey) or survey.code != code:
        return Survey(code)
    changed = [file for file, was in survey.files.items() if digest([ROOT / file]) != was]
    survey.forget(changed)
    for file in changed:
        del survey.files[file]
    return survey


def digest(paths: Iterable[Path]) -> str:
    """Of what the files hold."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes() if path.exists() else b"")
        digest.update(b"\0")
    return digest.hexdigest()
