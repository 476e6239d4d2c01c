import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Server, Shell

ROOT = Path(__file__).parents[2]
EMAIL = "ann@example.com"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """An operator's shell in an empty folder."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if "KEYBEARER" in name or "TOKEN_MANAGEMENT" in name:
                patch.delenv(name)
        patch.chdir(folder)
        shell = Shell(folder)
        shell.env = {
            "KEYBEARER_TOKEN_MANAGEMENT": "true",
            "KEYBEARER_PERMISSIONS": "files:read,deploy:run",
        }
        yield shell


@pytest.fixture(scope="module")
def server(shell: Shell) -> Iterator[Server]:
    """`keybearer serve --examples`, as `make run` has it, where deploying needs a permission."""
    with shell.serving("--examples") as server:
        yield server
