"""A file of keys opens in a spreadsheet, and does nothing there."""

import csv
import io
import json
from typing import Any

import pytest

from keybearer.operations.keywire import ApiKey
from keybearer.web.pages.exporting import as_csv, as_json


def key(**fields: Any) -> ApiKey:
    usual: dict[str, Any] = dict.fromkeys(ApiKey.__struct_fields__)
    return ApiKey(**{**usual, "ip_allow": [], "start": "kb_abcd", "request_count": 7, **fields})


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))


def test_a_row_has_what_the_record_has() -> None:
    (row,) = rows(
        as_csv([key(id="k1", name="CI", permissions={"files": ["read"]}, ip_allow=["203.0.113.7"])])
    )
    assert (row["id"], row["name"], row["requestCount"]) == ("k1", "CI", "7")
    assert (row["permissions"], row["ipAllow"]) == ("files:read", "203.0.113.7")
    assert row["expiresAt"] == ""


@pytest.mark.parametrize(
    "name", ['=HYPERLINK("http://e")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
)
def test_a_formula_is_text(name: str) -> None:
    (row,) = rows(as_csv([key(name=name, description=name)]))
    assert row["name"] == row["description"] == f"'{name}"


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a;b", "名前", "\u202eevil"])
def test_any_name_comes_back(name: str) -> None:
    (row,) = rows(as_csv([key(name=name)]))
    assert row["name"] == name


def test_json_is_the_record_of_the_api() -> None:
    (record,) = json.loads(as_json([key(id="k1", name="CI")]))["apiKeys"]
    assert record["id"] == "k1"
    assert record["requestCount"] == 7
    assert "key" not in record
