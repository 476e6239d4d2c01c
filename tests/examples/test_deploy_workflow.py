"""The CI job really deploys, tells when it may not, and shows nobody its key."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import Server, Shell
from tests.examples.conftest import ROOT

WORKFLOW = ROOT / "examples/github-actions/deploy.yml"


def step() -> dict[str, Any]:
    (found,) = yaml.safe_load(WORKFLOW.read_text())["jobs"]["deploy"]["steps"]
    assert isinstance(found, dict)
    return found


def run(base: str, key: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The step as the runner runs it: `bash` with its flags, and the values of `env` filled in."""
    values = {
        "${{ secrets.KEYBEARER_API_KEY }}": key,
        "${{ vars.KEYBEARER_URL }}": base,
        "${{ github.sha }}": "0231148d5a7e1cfd8b3f4a1f2c3b4d5e6f708192",
    }
    environment = {name: values[value] for name, value in step()["env"].items()}
    script = folder / "step.sh"
    script.write_text(step()["run"])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def keys(shell: Shell, server: Server) -> dict[str, str]:
    shell.user("ci@example.com")
    may = shell.key("--permission", "deploy:run", owner="ci@example.com")[1]
    may_not = shell.key("--permission", "files:read", owner="ci@example.com")[1]
    return {"may": may, "may not": may_not, "wrong": "kb_wrong"}


def test_it_deploys(server: Server, keys: dict[str, str], tmp_path: Path) -> None:
    done = run(server.base, keys["may"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"wouldDeploy":"0231148d' in done.stdout
    assert keys["may"] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("which", "code"), [("may not", "INSUFFICIENT_SCOPE"), ("wrong", "INVALID_API_KEY")]
)
def test_a_refusal_fails_the_job_and_is_told(
    server: Server, keys: dict[str, str], tmp_path: Path, which: str, code: str
) -> None:
    begun = time.monotonic()
    done = run(server.base, keys[which], tmp_path)
    assert done.returncode != 0
    assert code in done.stdout
    assert keys[which] not in done.stdout + done.stderr
    assert time.monotonic() - begun < 5  # a refusal is not tried again


@pytest.mark.parametrize(("base", "key"), [("", "kb_x"), ("http://127.0.0.1:1", "")])
def test_a_missing_setting_is_told_before_anything_is_sent(
    tmp_path: Path, base: str, key: str
) -> None:
    done = run(base, key, tmp_path)
    assert done.returncode != 0
    assert "KEYBEARER_API_KEY" in done.stderr or "KEYBEARER_URL" in done.stderr


def test_the_key_is_no_argument_of_any_process() -> None:
    """`printf` is a builtin of bash; curl gets the header over stdin."""
    script = step()["run"]
    curl = script[script.index("curl") :]
    assert "KEYBEARER_TOKEN" not in curl
    assert "--header @-" in curl


def test_nothing_is_pasted_into_the_script() -> None:
    assert "${{" not in step()["run"]
    assert yaml.safe_load(WORKFLOW.read_text())["permissions"] == {}
