"""Figures, and the machine they were measured on."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
RUNS = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table: the median of several runs, and all of them."""

    name: str
    unit: str
    runs: list[float]
    aim: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def row(self) -> str:
        low, high = min(self.runs), max(self.runs)
        return (
            f"| {self.name} | {_short(self.median)} {self.unit} "
            f"| {_short(low)} … {_short(high)} | {self.aim} |"
        )


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> str:
    """What it ran on, in one line, without a name."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """The versions that matter."""
    names = ("starlette", "fastapi", "granian", "msgspec", "sqlalchemy", "asyncpg", "pysqlite3")
    return {name: version(name) for name in names}


def kept() -> dict[str, list[Figure]]:
    """The figures of the last whole run, by group."""
    raw = json.loads((HERE / "figures.json").read_text("utf-8"))
    return {
        group: [Figure(each["name"], each["unit"], each["runs"], each["aim"]) for each in figures]
        for group, figures in raw.items()
    }


def write(
    groups: Mapping[str, Sequence[Figure]], others: Mapping[str, str], *, busy: float
) -> None:
    """Writes the table and the raw figures.

    Args:
        others: versions of what is not installed by Python.
        busy: how many others wanted a core when it began.
    """
    named = ", ".join(f"{name} {number}" for name, number in {**versions(), **others}.items())
    lines = [
        "# Benchmarks",
        "",
        "`make bench` runs them and writes this page. Each figure is the median of its runs;",
        "ratios compare runs that took turns on the same machine, so that its noise hits both.",
        "The raw runs are in `figures.json`.",
        "",
        f"Measured on {machine()}, with a load of {busy:.1f} before it began; {named}.",
        "",
        "| what | median | range of the runs | aim |",
        "| --- | --- | --- | --- |",
        *(figure.row() for figures in groups.values() for figure in figures),
        "",
        (HERE / "notes.md").read_text("utf-8").strip(),
        "",
    ]
    (HERE / "README.md").write_text("\n".join(lines), "utf-8")
    raw = {
        group: [{**asdict(figure), "median": figure.median} for figure in figures]
        for group, figures in groups.items()
    }
    (HERE / "figures.json").write_text(json.dumps(raw, indent=1) + "\n", "utf-8")
    sys.stdout.write("\n".join(lines))
