"""Makes small databases with throw-away people and keys, by the real packages of Python.

    python make_others.py FOLDER

others.sql is a dump of what it made, others.json what was given out. Packages: django
djangorestframework-api-key django-rest-knox keyshield fastapi-users pwdlib argon2-cffi bcrypt.
"""

# mypy: ignore-errors
import json
import sqlite3
import sys
from pathlib import Path

import django
from django.conf import settings

folder = Path(sys.argv[1])
settings.configure(
    SECRET_KEY="throw-away",
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "django.db"}},
    INSTALLED_APPS=[
        "django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "knox",
        "rest_framework_api_key", "keyshield.django",
    ],
    PASSWORD_HASHERS=[
        f"django.contrib.auth.hashers.{name}PasswordHasher"
        for name in ("PBKDF2", "PBKDF2SHA1", "Argon2", "BCryptSHA256", "BCrypt", "Scrypt")
    ],
)  # fmt: skip
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.contrib.auth.hashers import make_password  # noqa: E402
from django.core.management import call_command  # noqa: E402
from keyshield.hasher.argon2 import Argon2ApiKeyHasher  # noqa: E402
from keyshield.hasher.bcrypt import BcryptApiKeyHasher  # noqa: E402
from knox.models import AuthToken  # noqa: E402
from pwdlib import PasswordHash  # noqa: E402
from pwdlib.hashers.argon2 import Argon2Hasher  # noqa: E402
from pwdlib.hashers.bcrypt import BcryptHasher  # noqa: E402
from rest_framework_api_key.models import APIKey  # noqa: E402

call_command("migrate", verbosity=0)
given: dict[str, dict[str, object]] = {"people": {}, "drf": {}, "knox": {}, "keyshield": {}}

HASHERS = ("pbkdf2_sha256", "pbkdf2_sha1", "argon2", "bcrypt_sha256", "bcrypt", "scrypt")
for hasher in HASHERS:
    user = get_user_model().objects.create(
        username=hasher, email=f"{hasher}@example.com", first_name="Ann", last_name=hasher,
        password=make_password(f"ﬁrst {hasher}", hasher=hasher),
    )  # fmt: skip
    given["people"][user.email] = {"id": str(user.pk), "password": f"ﬁrst {hasher}"}
get_user_model().objects.create(username="nobody", email="", password="!")
off = get_user_model().objects.create(
    username="off", email="off@example.com", is_active=False, password=make_password(None)
)

new, key = APIKey.objects.create_key(name="new")
given["drf"]["new"] = key
old, key = APIKey.objects.create_key(name="old")
old.hashed_key = make_password(key, hasher="pbkdf2_sha256")
old.save()
given["drf"]["old"] = key
revoked, key = APIKey.objects.create_key(name="revoked")
revoked.revoked = True
revoked.save()
given["drf"]["revoked"] = key
for n, name in enumerate(("one", "two"), start=1):
    _, token = AuthToken.objects.create(user=get_user_model().objects.get(pk=n), expiry=None)
    given["knox"][name] = token
_, token = AuthToken.objects.create(user=off, expiry=None)
given["knox"]["off"] = token

with sqlite3.connect(folder / "django.db") as connection:
    dump = "\n".join(connection.iterdump())

PEPPER = "throw-away pepper"
given["pepper"] = PEPPER  # type: ignore[assignment]
secret = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ab"
lines = []
lines.append(
    "CREATE TABLE api_keys (id VARCHAR(36) PRIMARY KEY, name VARCHAR(128), description TEXT, "
    "is_active BOOLEAN NOT NULL, expires_at DATETIME, created_at DATETIME NOT NULL, "
    "last_used_at DATETIME, key_id VARCHAR(16) NOT NULL, key_hash VARCHAR(255) NOT NULL, "
    "key_secret_first VARCHAR(4) NOT NULL, key_secret_last VARCHAR(4) NOT NULL, scopes JSON);"
)
for n, (name, hashing) in enumerate(
    (("argon2", Argon2ApiKeyHasher(PEPPER)), ("bcrypt", BcryptApiKeyHasher(PEPPER, 10)))
):
    hashed = hashing.hash(secret)
    lines.append(
        f"INSERT INTO api_keys VALUES ('{n:032}', '{name}', 'a key', 1, NULL, "  # noqa: S608
        f"'2026-11-18 11:06:40.000000', NULL, 'abcdef012345678{n}', '{hashed}', 'abcd', '89ab', "
        "'[\"files:read\"]');"
    )
    given["keyshield"][name] = f"ak_v1-abcdef012345678{n}-{secret}"
lines.append(
    "CREATE TABLE user (email VARCHAR(320) NOT NULL, hashed_password VARCHAR(1024) NOT NULL, "
    "is_active BOOLEAN NOT NULL, is_superuser BOOLEAN NOT NULL, is_verified BOOLEAN NOT NULL, "
    "id CHAR(36) PRIMARY KEY);"
)
given["fastapi"] = {}
for n, (name, made) in enumerate((("argon2", Argon2Hasher()), ("bcrypt", BcryptHasher(rounds=10)))):
    hashed = PasswordHash((made,)).hash(f"password of {name}")
    id = f"00000000-0000-4000-8000-00000000000{n}"
    lines.append(
        f"INSERT INTO user VALUES ('fastapi.{name}@example.com', '{hashed}', 1, {n}, 1, '{id}');"  # noqa: S608
    )
    given["fastapi"][f"fastapi.{name}@example.com"] = {"id": id, "password": f"password of {name}"}

(folder / "others.sql").write_text(dump + "\n" + "\n".join(lines) + "\n")
(folder / "others.json").write_text(json.dumps(given, indent=1, ensure_ascii=False) + "\n")
