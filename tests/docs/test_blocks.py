"""Every code block of the README and the manual does what it says."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import (
    PAGES,
    PARSED,
    ROOT,
    RUN,
    SHOWN,
    Block,
    all_blocks,
    blocks_of,
    matches,
    parse,
    quiet_environment,
    run_python,
    run_shell,
    steps_of,
)

NOT_RUN = {"README.md": 2, "docs/quickstart.md": 3, "docs/server.md": 1}
"""How many blocks of a page are not run, each with its reason at its place."""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runnable(page: Path, *languages: str) -> list[Block]:
    blocks = [block for block in blocks_of(page) if block.language in languages]
    return [block for block in blocks if block.not_run is None]


PYTHON_PAGES = [page for page in PAGES if runnable(page, "python")]
SHELL_PAGES = [page for page in PAGES if runnable(page, "bash", "console")]
PARSED_BLOCKS = [block for block in all_blocks() if block.language in PARSED]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=named)
async def test_python_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keybearer.auth import Auth

    for name in [name for name in os.environ if "KEYBEARER" in name]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": page.stem}
    try:
        await run_python(runnable(page, "python"), namespace)
    finally:
        for value in namespace.values():
            if isinstance(value, Auth):
                await value.stop()


@pytest.mark.parametrize("page", SHELL_PAGES, ids=named)
def test_shell_blocks_run_against_a_server(page: Path, tmp_path: Path) -> None:
    environment = quiet_environment()
    with serving(tmp_path, environment) as base:
        blocks = runnable(page, "bash", "console")
        wrong = run_shell(blocks, tmp_path, {**environment, "BASE": base})
    assert wrong == [], "\n\n".join([*wrong, (tmp_path / "serve.log").read_text()[-3000:]])


@pytest.mark.parametrize("block", PARSED_BLOCKS, ids=lambda block: block.place)
def test_other_blocks_are_well_formed(block: Block) -> None:
    parse(block)


def test_every_block_has_a_language_that_is_run_parsed_or_shown() -> None:
    known = RUN | PARSED | SHOWN
    strange = [
        block.place
        for block in all_blocks()
        if block.language not in known and not block.language.startswith("{")  # {toctree}
    ]
    assert strange == []


def test_no_block_is_left_out_silently() -> None:
    left: dict[str, int] = {}
    for block in all_blocks():
        if block.not_run is not None:
            assert block.language in RUN, f"{block.place} would not run anyway"
            left[block.page] = left.get(block.page, 0) + 1
    assert left == NOT_RUN


def test_console_steps_are_commands_with_their_output() -> None:
    block = Block(page="p", line=1, language="console",
                  text="$ echo a\na\n$ printf '%s' \\\n  b\nb\n$ true\n")  # fmt: skip
    assert [(step.command, step.shown) for step in steps_of(block)] == [
        ("echo a", "a"), ("printf '%s' \\\n  b", "b"), ("true", "")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "said", "expected"),
    [
        ("a … c", "a b c\n", True), ("a…", "a\nb", True), ("a", "a b", False),
        ("", "a", False), ("…", "", True), ("a.c", "abc", False),
    ],
)  # fmt: skip
def test_an_ellipsis_stands_for_anything(shown: str, said: str, *, expected: bool) -> None:
    assert matches(shown, said) is expected


def test_a_wrong_output_and_a_failing_block_are_found(tmp_path: Path) -> None:
    def run(language: str, text: str) -> list[str]:
        block = Block(page="p", line=1, language=language, text=text)
        return run_shell([block], tmp_path, quiet_environment())

    assert run("console", "$ echo a\na\n") == []
    assert len(run("console", "$ echo a\nb\n")) == 1
    assert run("bash", "true\n") == []
    assert len(run("bash", "false\ntrue\n")) == 1


@contextlib.contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """`keybearer serve --examples`, as `make run` has it, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    # As `make run` has them.
    (folder / ".data").mkdir()
    settings = {
        "KEYBEARER_TOKEN_MANAGEMENT": "true",
        "KEYBEARER_DATABASE_URL": "sqlite:///.data/keybearer.db",
    }
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            ["keybearer", "serve", "--examples", "--port", str(port)],
            cwd=folder, env={**environment, **settings}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not answers(f"{base}/api/auth/health/ready"):
            assert server.poll() is None, (folder / "serve.log").read_text()
            assert time.monotonic() < deadline, "the server does not become ready"
            time.sleep(0.05)
        yield base
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 -- loopback
            return bool(answer.status == 200)
    except OSError:
        return False
