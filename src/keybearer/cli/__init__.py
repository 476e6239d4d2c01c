"""The command `keybearer`."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Runs the command; exit codes: 0, 1 (it failed), 2 (wrong usage)."""
    if any(find_spec(needed) is None for needed in ("click", "granian", "structlog")):
        print("the command needs more: pip install 'keybearer[server]'", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    from keybearer.cli.commands import keybearer

    keybearer(prog_name="keybearer")
