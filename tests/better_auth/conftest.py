"""Node, the packages from npm, a shell for the server, and Chromium."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import shell
from tests.pages.conftest import chromium, ready_url

__all__ = ["chromium", "ready_url", "shell"]

HERE = Path(__file__).parent
OURS = HERE.parents[1] / ".node" / "bin"


@pytest.fixture(scope="session")
def node() -> str:
    """The program that runs their packages: the one of `scripts/node`, or the machine's."""
    found = shutil.which("node", path=f"{OURS}{os.pathsep}{os.environ['PATH']}")
    assert found is not None, "Node is not installed: `make system`"
    assert (HERE / "node_modules").is_dir(), "npm's packages are not installed: `make system`"
    return found


@pytest.fixture(scope="session")
def card(node: str) -> Path:
    """The built page with their card."""
    built = HERE / "dist"
    assert (built / "index.html").exists(), "the page is not built: `make system`"
    return built
