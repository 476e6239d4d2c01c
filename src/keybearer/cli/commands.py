"""The tree of commands. Modules here import what they work with when they work."""

import click

from keybearer.cli.audit import audit
from keybearer.cli.doctor import doctor
from keybearer.cli.keys import keys
from keybearer.cli.migrate import migrate
from keybearer.cli.moving import export, move_in
from keybearer.cli.openapi import openapi
from keybearer.cli.outbox import outbox
from keybearer.cli.serve import serve
from keybearer.cli.service_token import service_token
from keybearer.cli.signing_keys import signing_keys
from keybearer.cli.users import users


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="keybearer")
def keybearer() -> None:
    """API keys and bearer tokens: the server, and what its operator does.

    Settings are KEYBEARER_* variables and a .env file; `keybearer doctor` checks them.
    """


for each in (
    serve, doctor, migrate, users, keys, service_token, signing_keys, audit, move_in, export,
    outbox, openapi,
):  # fmt: skip
    keybearer.add_command(each)
