"""`keybearer import`."""

import json
from pathlib import Path

import pytest

from tests.cli.command import Shell
from tests.moving import crowd
from tests.moving.conftest import HERE, Source


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    path = tmp_path / "theirs.db"
    crowd.build(path, 3, 30)
    return f"sqlite:///{path}"


def test_a_dry_run_and_then_the_import(shell: Shell, theirs: str) -> None:
    shell.ready()
    dry = shell.ok("import", "better-auth", theirs, "--dry-run")
    assert "WOULD IMPORT" in dry.stdout
    assert "nothing was written" in dry.stderr
    assert shell.json("keys", "list")["total"] == 0
    done = shell.ok("import", "better-auth", theirs)
    assert ["keys", "30", "30", "0", "0"] in [line.split() for line in done.stdout.splitlines()]
    assert shell.json("keys", "list")["total"] == 30
    verified = shell.ok("keys", "verify", stdin=crowd.key_of(7) + "\n")
    assert "key 7" in verified.stdout
    again = shell.json("import", "better-auth", theirs)
    assert again["keys"] == {"found": 30, "imported": 0, "present": 30, "skipped": 0}
    disabled = shell.json("users", "disable", "person" + "0" * 26)
    assert disabled["user"]["email"] == "person0@example.com"


def test_what_was_ended_there_goes_on_until_it_is_ended_here(shell: Shell, theirs: str) -> None:
    shell.ready()
    shell.ok("import", "better-auth", theirs)
    Source(theirs, {}).run("UPDATE apikey SET enabled = 0 WHERE name = 'key 7'")
    told = shell.run("import", "better-auth", theirs)
    assert told.exit_code == 1
    assert "disabled there, key" in told.stderr
    assert "--endings" in told.stderr
    shell.ok("keys", "verify", stdin=crowd.key_of(7) + "\n")
    told = shell.run("import", "better-auth", theirs, "--json")
    assert (told.exit_code, json.loads(told.stdout)["ended"][0]["carried"]) == (1, False)
    assert "so it is here now" in shell.ok("import", "better-auth", theirs, "--endings").stderr
    assert shell.run("keys", "verify", stdin=crowd.key_of(7) + "\n").exit_code == 1
    assert shell.json("import", "better-auth", theirs)["ended"] == []


def test_what_was_skipped_is_told(shell: Shell, theirs: str) -> None:
    shell.ready()
    told = shell.ok("import", "better-auth", theirs, "--plain-keys", "--dry-run")
    assert "skipped" not in told.stderr
    with_names = ("--table", "user=account", "--table", "apikey=apikey")
    told = shell.ok("import", "better-auth", theirs, "--dry-run", *with_names)
    assert "skipped user account" in told.stderr
    assert "and 13 more: --json lists them all" in told.stderr


def test_keys_alone(shell: Shell, theirs: str) -> None:
    shell.ready()
    report = shell.json("import", "better-auth", theirs, "--keys-only")
    assert (report["users"]["found"], report["keys"]["imported"]) == (0, 30)


@pytest.mark.parametrize("wrong", ["apikey", "=x", "apikey="])
def test_a_table_is_named_by_its_usual_name(shell: Shell, theirs: str, wrong: str) -> None:
    shell.ready()
    result = shell.run("import", "better-auth", theirs, "--table", wrong)
    assert result.exit_code == 2


def test_a_database_that_is_not_there_is_told(shell: Shell) -> None:
    shell.ready()
    result = shell.run("import", "better-auth", "sqlite:///not-there.db", "--json")
    assert result.exit_code == 1
    assert "is not there" in json.loads(result.stderr)["message"]


def test_an_export_is_read_again(shell: Shell, theirs: str, tmp_path: Path) -> None:
    shell.ready()
    shell.ok("import", "better-auth", theirs)
    written = shell.ok("export", "--hashes")
    assert json.loads(written.stdout.splitlines()[0])["type"] == "head"
    assert written.stderr == f"{len(written.stdout.splitlines())} lines\n"
    assert shell.ok("export", "--json").stderr == ""
    again = shell.json("import", "keybearer", "-", stdin=written.stdout)
    assert again["keys"] == {"found": 30, "imported": 0, "present": 30, "skipped": 0}
    (tmp_path / "export.jsonl").write_text(written.stdout)
    dry = shell.ok("import", "keybearer", str(tmp_path / "export.jsonl"), "--dry-run")
    assert "nothing was written" in dry.stderr


def test_a_file_that_is_no_export_is_told(shell: Shell) -> None:
    shell.ready()
    result = shell.run("import", "keybearer", "-", stdin="nothing\n")
    assert result.exit_code == 1
    assert "no export" in result.stderr


def test_the_others_move_in(shell: Shell, tmp_path: Path) -> None:
    source = Source(f"sqlite:///{tmp_path / 'others.db'}", {})
    source.run((HERE / "others.sql").read_text())
    given = json.loads((HERE / "others.json").read_text())
    shell.user()
    django = ("import", "django", source.url, "--verified", "--owner", "ann@example.com")
    assert shell.json(*django)["keys"]["imported"] == 6
    assert "new" in shell.ok("keys", "verify", stdin=given["drf"]["new"] + "\n").stdout
    assert shell.json("import", "fastapi-users", source.url)["users"]["imported"] == 2
    shell.env["KEYBEARER_KEYSHIELD_PEPPER"] = given["pepper"]
    keyshield = ("import", "keyshield", source.url, "--owner", "ann@example.com")
    assert shell.json(*keyshield)["keys"]["imported"] == 2
    shell.ok("keys", "verify", stdin=given["keyshield"]["bcrypt"] + "\n")
    line = '{"hash": "%s"}' % ("A" * 43)
    taken = shell.json("import", "unkey", "-", "--keys-only", "--owner", "team", stdin=line)
    assert taken["keys"]["imported"] == 1
    nobody = shell.run("import", "unkey", "-", "--owner", "nobody@example.com", stdin=line)
    assert nobody.exit_code == 1


def test_what_was_skipped_fails_where_it_is_asked_for(shell: Shell, theirs: str) -> None:
    shell.ready()
    wrong = ("import", "better-auth", theirs, "--dry-run", "--table", "user=account")
    assert shell.run(*wrong).exit_code == 0
    told = shell.run(*wrong, "--strict")
    assert (told.exit_code, "skipped user account" in told.stderr) == (1, True)
    told = shell.run(*wrong, "--strict", "--json")
    assert (told.exit_code, json.loads(told.stdout)["users"]["skipped"]) == (1, 3)
    assert shell.run("import", "better-auth", theirs, "--dry-run", "--strict").exit_code == 0


def test_an_export_that_was_cut_off_is_read_and_fails(shell: Shell, theirs: str) -> None:
    shell.ready()
    shell.ok("import", "better-auth", theirs)
    lines = shell.ok("export", "--hashes").stdout.splitlines()
    cut = "\n".join(lines[:-1])
    told = shell.run("import", "keybearer", "-", stdin=cut)
    assert told.exit_code == 1
    assert "it was cut off, and lines are missing" in told.stderr
    told = shell.run("import", "keybearer", "-", "--json", stdin=cut)
    assert (told.exit_code, json.loads(told.stdout)["truncated"]) == (1, True)
    told = shell.run("import", "keybearer", "-", stdin="")
    assert told.exit_code == 1
    assert "no export" in told.stderr
