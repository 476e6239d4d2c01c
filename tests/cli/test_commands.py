import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from keybearer.cli.commands import keybearer
from tests.cli.command import Shell


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from leaves(each, (*path, name))
        else:
            yield (*path, name)


EVERY = list(leaves(keybearer))


def test_the_commands_are_those_of_the_contract() -> None:
    assert {path[0] for path in EVERY} >= {
        "serve", "users", "keys", "service-token", "audit", "doctor", "migrate", "openapi",
    }  # fmt: skip


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_has_help_and_json(shell: Shell, path: tuple[str, ...]) -> None:
    shown = shell.ok(*path, "--help").stdout
    assert "--json" in shown
    assert len(shown.split("\n\n")[1].strip()) > 10  # what it does, in a sentence


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("keys", "nonsense"),
        ("keys", "create", "--name", "ci"),
        ("keys", "create", "--owner", "a@b.example"),
        ("keys", "create", "--name", "ci", "--owner", "a@b.example", "--owner-id", "x"),
        ("keys", "create", "--name", "ci", "--owner-id", "x", "--expires-in", "soon"),
        ("keys", "create", "--name", "ci", "--owner-id", "x", "--permission", "files"),
        ("keys", "create", "--name", "ci", "--owner-id", "x", "--rate-limit", "many"),
        ("keys", "list", "--status", "lost"),
        ("keys", "rotate", "x", "--grace", "never"),
        ("keys", "rotation", "extend", "x"),
        ("keys", "rotation", "extend", "x", "--grace", "soon"),
        ("keys", "verify"),
        ("users", "create", "a@b.example"),
        ("serve", "--port", "70000"),
        ("audit", "list", "--limit", "0"),
    ],
)
def test_wrong_usage_is_exit_code_2(shell: Shell, args: tuple[str, ...]) -> None:
    result = shell.run(*args, stdin="")
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""


def test_without_the_extra_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; from keybearer.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the command needs more: pip install 'keybearer[server]'\n"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KEYBEARER_NO_SUCH", "1"),
        ("KEYBEARER_PORT", "http"),
        ("KEYBEARER_SECRET", "short"),
        ("KEYBEARER_DATABASE_URL", "sqlite:////no/such/folder/k.db"),
        ("KEYBEARER_DATABASE_URL", "postgresql://nobody:word-of-pass@127.0.0.1:1/none"),
    ],
)
@pytest.mark.parametrize("args", [("keys", "list"), ("migrate",), ("doctor",)], ids=" ".join)
def test_what_is_wrong_is_one_line_and_exit_code_1(
    shell: Shell, variable: str, value: str, args: tuple[str, ...]
) -> None:
    shell.env = {"KEYBEARER_SECRET": "9bT4xK2vQ7mZ1rW5nH8cJ3pL6sD0yF4g", variable: value}
    result = shell.run(*args)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "word-of-pass" not in result.output
    if args != ("doctor",):
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("keybearer: ")


@pytest.mark.parametrize(
    "args",
    [
        ("users", "list"),
        ("users", "create", "a@b.example", "--name", "A"),
        ("keys", "create", "--owner-id", "x", "--name", "ci"),
        ("keys", "revoke", "x"),
        ("service-token", "create", "--name", "app"),
        ("signing-keys", "rotate"),
        ("audit", "verify"),
        ("outbox",),
    ],
    ids=" ".join,
)
def test_a_database_that_is_not_there_is_not_made_by_a_mistyped_name(
    shell: Shell, args: tuple[str, ...]
) -> None:
    shell.env["KEYBEARER_DATABASE_URL"] = "sqlite:///typo.db"
    result = shell.run(*args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"keybearer: DATABASE_URL: {shell.folder}/typo.db is not there: `keybearer serve` or "
        "`keybearer migrate` makes it\n"
    )
    assert list(shell.folder.iterdir()) == []


def test_with_json_the_reason_is_json(shell: Shell) -> None:
    shell.ok("migrate")
    result = shell.run("keys", "show", "nothing", "--json")
    assert result.exit_code == 1
    assert result.stderr == '{"code":"KEY_NOT_FOUND","message":"API Key not found"}\n'
