"""Runs every benchmark and writes the table."""

import sys
import tempfile
from pathlib import Path

from benchmarks import in_process, over_http, pages
from benchmarks.measure import Figure, write

PAGES = {
    "over_http": over_http.figures,
    "in_process": in_process.figures,
    "pages": pages.figures,
}


def main(asked: list[str]) -> None:
    """Runs the pages that were asked for, or all; only a whole run writes the table."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="keybearer-bench-") as folder:
        for name, page in PAGES.items():
            if not asked or name in asked:
                sys.stderr.write(f"{name} …\n")
                for figure in page(Path(folder)):
                    sys.stderr.write(figure.row() + "\n")
                    figures.append(figure)
    if not asked:
        write(figures)


main(sys.argv[1:])
