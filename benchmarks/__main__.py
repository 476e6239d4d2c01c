"""Runs the benchmarks and writes the table.

make bench                               all of them, about twenty minutes
make bench ARGS="routes memory"          some, and writes nothing
make bench ARGS="--without ten_million"  the others; the rows of these stay as they were

A group that fails is told, and leaves its rows as they were.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks import (
    in_process,
    memory,
    nodes,
    over_http,
    pages,
    rivals,
    routes,
    storm,
    ten_million,
    writes,
)
from benchmarks.measure import Figure, kept, write

GROUPS = {
    "rivals": rivals.figures,
    "over_http": over_http.figures,
    "routes": routes.figures,
    "in_process": in_process.figures,
    "memory": memory.figures,
    "nodes": nodes.figures,
    "writes": writes.figures,
    "storm": storm.figures,
    "ten_million": ten_million.figures,
    "pages": pages.figures,
}


def main() -> None:
    """Runs what was asked for; only a whole run writes the table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # with what it has started
    asked, busy = _arguments(), os.getloadavg()[0]
    measured: dict[str, list[Figure]] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="keybearer-bench-") as folder:
        for name, group in GROUPS.items():
            if (asked.groups and name not in asked.groups) or name in asked.without:
                continue
            sys.stderr.write(f"{name} …\n")
            begun = time.monotonic()
            try:
                measured[name] = group(Path(folder))
            except Exception:  # noqa: BLE001 -- the others shall not be in vain
                traceback.print_exc()
                failed.append(name)
                continue
            sys.stderr.writelines(figure.row() + "\n" for figure in measured[name])
            sys.stderr.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
    if not asked.groups:
        before = kept() if asked.without or failed else {}
        whole = {name: measured.get(name) or before.get(name, []) for name in GROUPS}
        write(whole, rivals.versions(), busy=busy)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="run these alone")
    parser.add_argument("--without", nargs="+", choices=GROUPS, default=[], help="skip these")
    return parser.parse_args()


main()
