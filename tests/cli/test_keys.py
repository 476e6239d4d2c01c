import re

import pytest

from tests.cli.command import PASSWORD, Shell


@pytest.fixture(autouse=True)
def _ann(shell: Shell) -> None:
    shell.user()


def test_the_key_stands_alone_on_stdout(shell: Shell) -> None:
    made = shell.ok("keys", "create", "--owner", "ANN@example.com", "--name", "ci")
    assert re.fullmatch(r"kb_[0-9A-Za-z]{49}\n", made.stdout)
    assert "not shown again" in made.stderr
    assert made.stdout.strip() not in made.stderr


def test_a_key_is_made_as_asked(shell: Shell) -> None:
    shell.env["KEYBEARER_PERMISSIONS"] = "files:read,files:write,deploy:run"
    made = shell.json(
        "keys", "create", "--owner", "ann@example.com", "--name", "ci", "--description", "nightly",
        "--expires-in", "30d", "--permission", "files:read", "--permission", "deploy:run",
        "--ip-allow", "10.0.0.0/8", "--rate-limit", "5/1m", "--remaining", "9",
    )  # fmt: skip
    assert made["name"] == "ci"
    assert made["description"] == "nightly"
    assert made["permissions"] == {"deploy": ["run"], "files": ["read"]}
    assert made["ipAllow"] == ["10.0.0.0/8"]
    assert (made["rateLimitMax"], made["rateLimitTimeWindow"]) == (5, 60_000)
    assert made["remaining"] == 9
    assert made["expiresAt"] is not None


def test_a_key_can_be_without_end_and_limit(shell: Shell) -> None:
    id, _ = shell.key("--expires-in", "never", "--rate-limit", "off")
    shown = shell.json("keys", "show", id)
    assert shown["expiresAt"] is None
    assert shown["rateLimitEnabled"] is False


def test_a_host_apps_owner_is_named_by_id(shell: Shell) -> None:
    made = shell.json("keys", "create", "--owner-id", "customer-7", "--name", "ci")
    assert made["referenceId"] == "customer-7"
    (listed,) = shell.json("keys", "list", "--owner-id", "customer-7")["apiKeys"]
    assert listed["id"] == made["id"]


def test_an_unknown_owner_is_told_so(shell: Shell) -> None:
    result = shell.run("keys", "create", "--owner", "bob@example.com", "--name", "ci")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "keybearer: User not found\n"


def test_lists_show_keys_and_never_secrets(shell: Shell) -> None:
    id, key = shell.key()
    listed = shell.ok("keys", "list").stdout
    assert id in listed
    assert key not in listed
    assert shell.json("keys", "list", "--status", "revoked")["total"] == 0
    assert shell.json("keys", "list", "--owner", "ann@example.com")["total"] == 1
    shell.key()
    assert shell.ok("keys", "list", "--limit", "1").stderr == "1 of 2\n"
    assert key not in shell.ok("keys", "show", id).stdout


def test_a_name_cannot_drive_the_terminal(shell: Shell) -> None:
    shell.json("keys", "create", "--owner-id", "x", "--name", "a\u202eb")
    assert "a\\u202eb" in shell.ok("keys", "list").stdout


def test_verify_reads_the_key_and_counts_nothing(shell: Shell) -> None:
    id, key = shell.key("--remaining", "1")
    for _ in range(3):
        assert shell.ok("keys", "verify", stdin=f"{key}\n").stdout.startswith("FIELD")
    assert shell.json("keys", "show", id)["requestCount"] == 0
    assert shell.json("keys", "verify", stdin=key)["key"]["id"] == id


def test_verify_says_why_not(shell: Shell) -> None:
    id, key = shell.key()
    result = shell.run("keys", "verify", "--permission", "files:read", stdin=key)
    assert result.exit_code == 1
    assert "INSUFFICIENT_SCOPE" in result.stderr
    result = shell.run("keys", "verify", stdin="kb_nonsense")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "keybearer: INVALID_API_KEY: Invalid API key\n"
    shell.ok("keys", "revoke", id)
    assert "KEY_REVOKED" in shell.run("keys", "verify", stdin=key).stderr


def test_revoke_is_told_with_its_receipt(shell: Shell) -> None:
    id, _ = shell.key()
    done = shell.ok("keys", "revoke", id, "--reason", "leaked")
    assert done.stderr == "revoked; nobody serves this database now\n"
    assert done.stdout == ""
    (event, *_) = shell.json("audit", "list")["events"]
    assert (event["event"], event["targetId"]) == ("key.revoked", id)
    assert event["details"] == {"reason": "leaked"}
    assert event["actorKind"] == "operator"


@pytest.mark.parametrize("grace", ["0", "1h"])
def test_rotate_prints_the_new_secret_alone(shell: Shell, grace: str) -> None:
    id, old = shell.key()
    new = shell.ok("keys", "rotate", id, "--grace", grace).stdout.strip()
    assert shell.json("keys", "verify", stdin=new)["key"]["id"] == id
    assert shell.run("keys", "verify", stdin=old).exit_code == (1 if grace == "0" else 0)


def test_a_rotation_is_looked_at_extended_and_finished(shell: Shell) -> None:
    id, old = shell.key()
    rotated = shell.ok("keys", "rotate", id, "--grace", "until-finished")
    assert "works until the rotation is finished" in rotated.stderr
    head, newest, before = shell.ok("keys", "rotation", "show", id).stdout.splitlines()
    assert head.split()[:3] == ["START", "WORKS", "UNTIL"]
    assert newest.startswith(rotated.stdout[:7])
    assert "current" in newest
    assert before.startswith(old[:7])
    assert "it is finished" in before
    assert "works for 1h more" in shell.ok("keys", "rotation", "extend", id, "--grace", "1h").stderr
    assert "it is finished" not in shell.ok("keys", "rotation", "show", id).stdout
    assert shell.run("keys", "verify", stdin=old).exit_code == 0
    finished = shell.ok("keys", "rotation", "finish", id)
    assert finished.stderr.startswith(f"finished; only {rotated.stdout[:7]}")
    assert shell.run("keys", "verify", stdin=old).exit_code == 1
    assert shell.run("keys", "rotation", "finish", id).exit_code == 1


def test_an_old_secret_goes_on_for_thirty_days_at_the_most(shell: Shell) -> None:
    id, _ = shell.key()
    refused = shell.run("keys", "rotate", id, "--grace", "31d")
    assert refused.exit_code == 1
    assert "from 0 to 2592000" in refused.stderr
    assert not shell.json("keys", "rotation", "show", id)["rotating"]


def test_a_cancelled_rotation_goes_back_to_the_old_secret(shell: Shell) -> None:
    id, old = shell.key()
    new = shell.ok("keys", "rotate", id).stdout.strip()
    assert shell.json("keys", "rotation", "show", id)["rotating"]
    cancelled = shell.ok("keys", "rotation", "cancel", id)
    assert cancelled.stderr == f"cancelled; {old[:7]}… is the key again\n"
    assert shell.run("keys", "verify", stdin=new).exit_code == 1
    assert shell.run("keys", "verify", stdin=old).exit_code == 0


def test_the_end_of_a_rotation_is_told_in_json(shell: Shell) -> None:
    for end in (("finish",), ("cancel",), ("extend", "--grace", "0")):
        id, _ = shell.key()
        shell.ok("keys", "rotate", id)
        assert shell.json("keys", "rotation", end[0], id, *end[1:])["id"] == id
        assert not shell.json("keys", "rotation", "show", id)["rotating"]


def test_json_has_the_whole_answer(shell: Shell) -> None:
    id, _ = shell.key()
    assert shell.json("keys", "rotate", id)["key"].startswith("kb_")
    assert shell.json("keys", "revoke", id).keys() == {"success", "revokedAt", "nodes", "waitedMs"}
    made = shell.json("service-token", "create", "--name", "app")
    assert made["token"].startswith("kbs_")
    assert shell.json("users", "disable", "ann@example.com")["user"]["disabledAt"] is not None


def test_people_are_made_listed_disabled_enabled_and_deleted(shell: Shell) -> None:
    made = shell.run(
        "users", "create", "bob@example.com", "--name", "Bob", "--password-stdin", "--admin",
        stdin=PASSWORD + "\n",
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    assert PASSWORD not in made.output
    assert {user["email"]: user["role"] for user in shell.json("users", "list")["users"]} == {
        "ann@example.com": "user",
        "bob@example.com": "admin",
    }
    _, key = shell.key(owner="bob@example.com")
    assert shell.run("keys", "verify", stdin=key).exit_code == 1  # the address is not verified
    _, key = shell.key()
    shell.ok("users", "disable", "ann@example.com")
    assert "OWNER_DISABLED" in shell.run("keys", "verify", stdin=key).stderr
    shell.ok("users", "enable", "ann@example.com")
    assert shell.run("keys", "verify", stdin=key).exit_code == 0
    assert "disabled" not in shell.ok("users", "list").stdout
    assert shell.run("users", "delete", "ann@example.com", stdin="n\n").exit_code == 1
    shell.ok("users", "delete", "ann@example.com", "--yes")
    assert shell.run("keys", "verify", stdin=key).exit_code == 1
    assert shell.json("users", "list", "--search", "ann")["total"] == 0


def test_a_bad_password_is_refused(shell: Shell) -> None:
    args = ("users", "create", "bob@example.com", "--name", "Bob", "--password-stdin")
    result = shell.run(*args, stdin="short\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert shell.run(*args, stdin="").exit_code == 2


def test_mail_that_is_only_printed_can_be_read(shell: Shell) -> None:
    shell.ok("users", "create", "bob@example.com", "--name", "Bob")
    assert "bob@example.com" in shell.ok("outbox").stdout
    (mail,) = shell.json("outbox")["mails"]
    assert "http://127.0.0.1:8000/" in mail["text"]
    shell.env["KEYBEARER_SMTP_URL"] = "smtp://127.0.0.1:1"
    assert shell.run("outbox").exit_code == 1


def test_service_tokens_are_made_listed_and_revoked(shell: Shell) -> None:
    made = shell.ok("service-token", "create", "--name", "billing")
    assert re.fullmatch(r"kbs_[0-9A-Za-z]{49}\n", made.stdout)
    hash_ = re.search(r"KEYBEARER_SERVICE_TOKENS=([0-9a-f]{64})", made.stderr)
    assert hash_
    shell.env["KEYBEARER_SERVICE_TOKENS"] = hash_[1]
    listed = shell.json("service-token", "list")
    assert listed["ofSettings"] == [hash_[1]]
    (token,) = listed["serviceTokens"]
    assert (token["name"], token["revokedAt"]) == ("billing", None)
    assert "billing" in shell.ok("service-token", "list").stdout
    assert shell.json("service-token", "revoke", token["id"])["success"] is True
    shell.ok("service-token", "revoke", token["id"])
    assert shell.run("service-token", "revoke", "x").exit_code == 1


def test_signing_keys_rotate(shell: Shell) -> None:
    first = shell.json("signing-keys", "rotate")["kid"]
    second = shell.ok("signing-keys", "rotate").stderr
    kids = [key["kid"] for key in shell.json("signing-keys", "list")["signingKeys"]]
    assert kids[0] == first
    assert kids[1] in second
    assert kids[1] in shell.ok("signing-keys", "list").stdout
