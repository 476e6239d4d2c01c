"""The tests of the core in one process, and a fork of it for each wrong."""

import ast
import gc
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutants import pool
from tests.mutants.operators import Mutant
from tests.mutants.survey import PACKAGE, ROOT, Survey, digest

AT_ONCE = 2
FOLDERS = ("tests/domain", "tests/verification", "tests/operations", "tests/attacks")
LEFT_OUT = (
    # Servers, browsers, and the long searches.
    *("test_stale", "test_quota_search", "test_faults", "test_htt", "test_web", "test_lek"),
    *("test_lim_nodes", "test_lim_quotas", "test_obj"),
)
OPTIONS = (
    "-q",
    "-s",
    "--tb=native",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
_SERVERS = {
    *("postgres_server", "postgres_url", "fresh_postgres", "redis_server", "redis_url"),
    *("cluster_server", "cluster_url"),
}
COLD = "cold"
TIME = "time"
SURVIVED = "survived"


def files() -> list[str]:
    """The files of the tests that count."""
    return [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).glob("test_*.py"))
        if not path.stem.startswith(LEFT_OUT)
    ]


class Tests:
    """A plugin that runs chosen tests until one fails."""

    def __init__(self) -> None:
        self.failed = False
        settings.register_profile(
            "mutants",
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=40,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not _needs_server(item)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or report.failed

    def first_failing(
        self, items: Sequence[pytest.Item], other: pytest.Item, seconds: dict[str, float]
    ) -> str:
        """The test that fails, or that none does. `other` keeps what all tests share."""
        for item, following in zip(items, [*items[1:], other], strict=True):
            pool.limit(1 + 5 * seconds.get(item.nodeid, 1.0))
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return item.nodeid
        return SURVIVED


class Warm(Tests):
    """Surveys the tests, and tries the wrongs inside of functions.

    Each is put into a process that has imported everything: the functions get other code.
    """

    def __init__(
        self,
        survey: Survey,
        trees: dict[str, ast.Module],
        mutants: Sequence[Mutant],
        tell: Callable[[Mutant, str], None],
    ) -> None:
        super().__init__()
        self._survey = survey
        self._trees = trees
        self._mutants = mutants
        self._tell = tell
        self._items: dict[str, pytest.Item] = {}
        self._functions: dict[str, list[FunctionType]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        items = session.items
        spare = next(item for item in items if "ready_url" in getattr(item, "fixturenames", ()))
        spare.ihook.pytest_runtest_protocol(item=spare, nextitem=items[0])
        if self.failed or threading.active_count() > 1:
            raise pytest.UsageError("a test fails, or leaves a thread: nothing can be forked")
        gc.collect()
        gc.freeze()
        self._look(items)
        self._survey.keep()
        self._functions = _functions({str(PACKAGE / module) for module in self._trees})
        jobs = self._jobs()
        for number, said in pool.run(jobs, at_once=AT_ONCE):
            mutant = self._mutants[number]
            if said not in (None, SURVIVED, COLD):
                self._killers[_place(mutant)] = said
            self._tell(mutant, said or TIME)
        return True

    # --- survey ---

    def _look(self, items: list[pytest.Item]) -> None:
        of_file: dict[str, list[pytest.Item]] = {}
        for item in items:
            file = item.nodeid.split("::")[0]
            if file not in self._survey.files:
                of_file.setdefault(file, []).append(item)
        with tempfile.TemporaryDirectory() as folder:
            jobs = [
                partial(self._watch, own, items, Path(folder) / file.replace("/", "-"))
                for file, own in of_file.items()
            ]
            names = list(of_file)
            for number, said in pool.run(jobs, at_once=AT_ONCE):
                if not said or said.startswith("failed"):
                    raise pytest.UsageError(f"{names[number]} without any wrong: {said}")
                seconds, lines = pickle.loads(Path(said).read_bytes())  # noqa: S301 -- our own
                self._survey.add(seconds, lines)
                self._survey.files[names[number]] = digest([ROOT / names[number]])
                self._survey.keep()

    def _watch(self, items: list[pytest.Item], all_items: list[pytest.Item], path: Path) -> str:
        """Run tests and see through which lines each goes."""
        other = next(item for item in all_items if item is not items[-1])
        watch = coverage.Coverage(
            data_file=None, config_file=False, concurrency=["thread"],
            include=[f"{PACKAGE}/domain/*", f"{PACKAGE}/verification/*"],
        )  # fmt: skip
        watch.set_option("run:disable_warnings", ["no-data-collected"])
        watch.start()
        seconds = {}
        for item, following in zip(items, [*items[1:], other], strict=True):
            watch.switch_context(item.nodeid)
            before = time.process_time()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = time.process_time() - before
            if self.failed:
                return f"failed: {item.nodeid}"
        watch.stop()
        data = watch.get_data()
        lines = {
            str(Path(file).relative_to(PACKAGE)): {
                line: {test for test in tests if test}
                for line, tests in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        path.write_bytes(pickle.dumps((seconds, lines)))
        return str(path)

    # --- wrongs ---

    def _jobs(self) -> Iterator[Callable[[], str]]:
        self._killers: dict[str, str] = {}
        for mutant in self._mutants:
            first = self._killers.get(_place(mutant))
            yield partial(self._try, mutant, first)

    def _try(self, mutant: Mutant, first: str | None) -> str:
        path = PACKAGE / mutant.module
        new = _codes(mutant.compiled(self._trees[mutant.module], path))
        for function in self._functions[str(path)]:
            code = function.__code__
            other = new.get((code.co_qualname, code.co_firstlineno))
            if other is None or len(other.co_freevars) != len(code.co_freevars):
                return COLD
            function.__code__ = other
        chosen = self._survey.tests(mutant, first)
        items = [self._items[test] for test in chosen if test in self._items]
        if not items:
            return SURVIVED
        other_item = next(item for item in self._items.values() if item is not items[-1])
        return self.first_failing(items, other_item, self._survey.seconds)


def _place(mutant: Mutant) -> str:
    return mutant.id.split(": ")[0]


def _needs_server(item: pytest.Item) -> bool:
    if _SERVERS & set(getattr(item, "fixturenames", ())):
        return True
    parameters = getattr(item, "callspec", None)
    return parameters is not None and "postgresql" in parameters.id.split("-")


def _functions(paths: set[str]) -> dict[str, list[FunctionType]]:
    """The functions that live in this process, by file."""
    found: dict[str, list[FunctionType]] = {path: [] for path in paths}
    gc.unfreeze()
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename in found:
            found[thing.__code__.co_filename].append(thing)
    gc.freeze()
    return found


def _codes(code: CodeType) -> dict[tuple[str, int], CodeType]:
    found = {(code.co_qualname, code.co_firstlineno): code}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= _codes(inner)
    return found
