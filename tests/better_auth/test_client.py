"""Better Auth's own JavaScript client, unmodified, against the server of the command."""

import os
import subprocess

from tests.better_auth.conftest import HERE
from tests.cli.command import Shell


def test_their_client_works(shell: Shell, node: str) -> None:
    shell.env |= {
        "KEYBEARER_TOKEN_MANAGEMENT": "true",
        "KEYBEARER_REQUIRE_EMAIL_VERIFICATION": "false",
    }
    token = shell.service_token()
    with shell.serving() as server:
        done = subprocess.run(
            [node, "--test", "--test-reporter=spec", "client.test.mjs"],
            cwd=HERE,
            env=os.environ | {"BASE": server.base, "SERVICE": token},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass 6" in done.stdout
