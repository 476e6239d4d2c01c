"""The workers of one server tell of each other."""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from keybearer import Auth, Misuse
from keybearer.web import siblings
from keybearer.web.figures import Buckets, Figure, gauge
from keybearer.web.mount import no_app
from keybearer.web.siblings import Siblings
from tests.people import SECRET

FIGURES = [
    gauge("cache_entries", "Cached grants.", 3.5),
    Figure("waits", "histogram", "Waits.", ((("a",), Buckets((("1", 2), ("+Inf", 3)), 4.5)),)),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a name that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="kb-", dir="/tmp") as name:
        yield Path(name)


def worker(folder: Path) -> Siblings:
    return Siblings(folder, lambda: FIGURES)


@pytest.fixture
async def first(folder: Path) -> AsyncIterator[Siblings]:
    first = worker(folder)
    await first.start()
    yield first
    await first.stop()


async def test_each_has_a_number_and_hears_of_the_others(folder: Path, first: Siblings) -> None:
    second = worker(folder)
    await second.start()
    assert (first.number, second.number) == (1, 2)
    assert await first.ask() == {2: FIGURES}
    assert await second.ask() == {1: FIGURES}
    await second.stop()
    assert await first.ask() == {}
    third = worker(folder)
    await third.start()
    assert third.number == 2  # who comes after one is called as it was
    await third.stop()


async def test_who_was_killed_is_not_told_of_and_its_number_is_free(
    folder: Path, first: Siblings
) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "2.socket"))
    (folder / "2").touch()
    (folder / "x.socket").touch()
    assert await first.ask() == {}
    second = worker(folder)
    await second.start()
    assert second.number == 2
    assert await first.ask() == {2: FIGURES}
    await second.stop()


async def test_who_hangs_is_told_of_without_figures(
    folder: Path, first: Siblings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "PATIENCE_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "2.socket"))
        silent.listen()
        assert await first.ask() == {2: None}


async def test_who_talks_nonsense_is_told_of_without_figures(folder: Path, first: Siblings) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense")
        writer.close()

    async with await asyncio.start_unix_server(talk, folder / "2.socket"):
        assert await first.ask() == {2: None}


async def test_a_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    os.chmod(folder, 0o701)
    with pytest.raises(Misuse, match="chmod 700"):
        await worker(folder).start()
    for wrong in (folder / "none", folder / ("x" * 120)):
        with pytest.raises(Misuse, match="METRICS_DIR takes"):
            await worker(wrong).start()


async def test_a_name_that_is_too_long_is_refused_and_holds_no_number(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 110)
    long.mkdir(mode=0o700)
    refused = worker(long)
    with pytest.raises(Misuse, match="with a short name"):
        await refused.start()
    await refused.stop()
    assert (long / "1").exists()


async def test_one_scrape_has_all_workers(folder: Path, first: Siblings, tmp_path: Path) -> None:
    auth = Auth(
        f"sqlite:///{tmp_path}/k.db", secret=SECRET, accounts=False, metrics_dir=str(folder)
    )
    transport = httpx2.ASGITransport(app=auth.mount(no_app), client=("127.0.0.1", 50000))
    async with (
        auth.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        lines = (await client.get("/api/auth/metrics")).text.splitlines()
        told = (await first.ask())[2]
    assert told is not None
    assert {"lease_held", "receipt_seconds"} < {figure.name for figure in told}
    assert 'keybearer_cache_entries{worker="1"} 3.5' in lines
    assert 'keybearer_cache_entries{worker="2"} 0.0' in lines
    assert 'keybearer_worker_up{worker="1"} 1.0' in lines
    assert sum(line.startswith("keybearer_outbox_waiting") for line in lines) == 1
    assert os.listdir(folder)
    assert await first.ask() == {}


async def test_a_start_that_fails_leaves_no_number(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = Auth(
        f"sqlite:///{tmp_path}/k.db", accounts=False, metrics_dir=str(folder), secret=SECRET
    )

    async def fail(*_: object) -> None:
        raise RuntimeError("wired wrongly")

    monkeypatch.setattr(auth, "_wire", fail)
    with pytest.raises(RuntimeError):
        await auth.start()
    assert os.listdir(folder) == ["1"]
    assert auth.siblings is None
