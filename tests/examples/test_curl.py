"""The tour with curl, from sign-up to a revoked key."""

import os
import subprocess

from tests.cli.command import Server
from tests.examples.conftest import ROOT


def test_the_tour_ends_with_a_refused_key(server: Server) -> None:
    done = subprocess.run(
        [str(ROOT / "examples/curl.sh")],
        env={"PATH": os.environ["PATH"], "BASE": server.base, "EMAIL": "tour@example.com"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.isdigit()] == ["200", "200", "401", "401"]
    assert '"email":"tour@example.com"' in done.stdout
    assert '"success":true' in done.stdout
