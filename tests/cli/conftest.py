import os
from pathlib import Path

import pytest

from tests.cli.command import Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in an empty folder, without KEYBEARER_* of whoever runs the tests."""
    for name in os.environ:
        if "KEYBEARER" in name or "TOKEN_MANAGEMENT" in name:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path)
