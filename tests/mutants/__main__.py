"""Tries thousands of small wrongs in the core, and tells which no test notices.

    python -m tests.mutants [--again | --on] [--warm] [module …]

Args:
    module: what the path below src/keybearer begins with, as `domain/limits` or `verification`.
    --again: only those that survived the last time.
    --on: all but those that were noticed in earlier runs.
    --warm: only those inside of functions, which take a tenth of the time of the others.

Each wrong meets the tests of its line, those of its module first and else the quickest, for as
long as PATIENCE says (6 seconds of the processor). The tests that count are those of
tests/domain, tests/verification, tests/operations and tests/attacks that need no server, without
the long searches; properties are tried with 40 examples, always the same ones.

Exits with 1 where a survivor is not explained in survivors.md.
"""

import ast
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

import pytest

from tests.mutants import cold
from tests.mutants.hunt import COLD, OPTIONS, SURVIVED, TIME, Warm, files
from tests.mutants.operators import Mutant, mutants
from tests.mutants.survey import PACKAGE, ROOT, STATE, known

EXPLAINED = ROOT / "tests" / "mutants" / "survivors.md"
RESULTS = STATE / "results.jsonl"
FOLDERS = ("domain", "verification")
FIRST = (
    *("domain/credentials.py", "verification/verifier.py", "verification/cache.py"),
    *("verification/coherence.py", "verification/lease.py", "verification/spread.py"),
    *("verification/receipts.py", "verification/limiter.py", "domain/limits.py"),
    *("verification/quota.py", "verification/shared.py", "domain/permissions.py"),
    *("domain/networks.py", "domain/judgement.py", "domain/model.py", "domain/jwt.py"),
    *("verification/access.py", "verification/grants.py", "verification/presented.py"),
)
"""What is tried first: where most stands on it."""


def main(arguments: list[str]) -> int:
    again = "--again" in arguments
    wanted = tuple(each for each in arguments if not each.startswith("-")) or FOLDERS
    os.chdir(ROOT)
    STATE.mkdir(exist_ok=True)
    before = _results()
    trees = {}
    everything: list[Mutant] = []
    for folder in FOLDERS:
        for path in sorted((PACKAGE / folder).glob("*.py")):
            module = str(path.relative_to(PACKAGE))
            trees[module] = ast.parse(path.read_text())
            everything += mutants(module, trees[module])
    chosen = [
        mutant
        for mutant in everything
        if mutant.module.startswith(wanted)
        and (not again or before.get(mutant.id) == SURVIVED)
        and ("--on" not in arguments or before.get(mutant.id) in (None, SURVIVED, COLD))
    ]
    chosen.sort(
        key=lambda mutant: FIRST.index(mutant.module) if mutant.module in FIRST else len(FIRST)
    )
    begun = time.monotonic()
    with RESULTS.open("a") as sink:
        count = 0

        def tell(mutant: Mutant, said: str) -> None:
            nonlocal count
            count += said != COLD
            sink.write(json.dumps([mutant.id, said]) + "\n")
            sink.flush()
            if sys.stderr.isatty() or count % 100 == 0:
                print(f"\r{count} of {len(chosen)}", end="", file=sys.stderr, flush=True)

        _warm(trees, [mutant for mutant in chosen if mutant.within], tell)
        if "--warm" not in arguments:
            results = _results()
            left = [m for m in chosen if not m.within or results.get(m.id) == COLD]
            cold.hunt(known(), trees, left, tell)
    print(file=sys.stderr)
    print(f"{len(chosen)} in {time.monotonic() - begun:.0f} s")
    return _report([mutant for mutant in everything if mutant.module.startswith(wanted)])


def _warm(
    trees: dict[str, ast.Module], mutants: list[Mutant], tell: Callable[[Mutant, str], None]
) -> None:
    """In a process of its own: this one must not import what is changed from outside."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            plugin = Warm(known(), trees, mutants, tell)
            said = pytest.main([*OPTIONS, *files()], plugins=[plugin])
            code = int(said)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit("The tests could not be run.")


def _results() -> dict[str, str]:
    if not RESULTS.exists():
        return {}
    return dict(json.loads(line) for line in RESULTS.read_text().splitlines())


def _report(all_of: list[Mutant]) -> int:
    results = _results()
    explained = tuple(
        line.removeprefix("- ")
        for line in EXPLAINED.read_text().splitlines()
        if line.startswith("- ")
    )
    tried = [mutant for mutant in all_of if results.get(mutant.id, COLD) != COLD]
    total = Counter(mutant.module for mutant in tried)
    survived = [mutant for mutant in tried if results[mutant.id] == SURVIVED]
    alive = Counter(mutant.module for mutant in survived)
    for mutant in survived:
        if not mutant.id.startswith(explained):
            print(f"{mutant.lines[0]:4} {mutant.id}")
    for folder in FOLDERS:
        total[folder] = sum(n for name, n in total.items() if name.startswith(f"{folder}/"))
        alive[folder] = sum(n for name, n in alive.items() if name.startswith(f"{folder}/"))
    for name in sorted(total):
        if total[name]:
            share = 100 * (total[name] - alive[name]) / total[name]
            print(f"{name:30} {total[name]:5} {alive[name]:4} {share:6.1f} %")
    slow = sum(results[mutant.id] == TIME for mutant in tried)
    print(f"{len(all_of) - len(tried)} were not tried, {slow} were noticed by their time alone")
    return int(any(not mutant.id.startswith(explained) for mutant in survived))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
