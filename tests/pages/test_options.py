"""What a host app says of the pages is checked at once."""

from pathlib import Path

import pytest

from keybearer import Misuse, Pages


@pytest.mark.parametrize("path", ["settings", "/settings/", "/", "//x", "/a b", "/a?b"])
def test_a_path_that_is_none_is_misuse(path: str) -> None:
    with pytest.raises(Misuse, match="takes a path"):
        Pages(path=path)


@pytest.mark.parametrize(
    "address", ["//evil.example", "https://evil.example", "javascript:alert(1)", "/\\evil", "x", ""]
)
def test_another_origin_is_misuse(address: str) -> None:
    for wrong in (
        {"home": address},
        {"stylesheet": address},
        {"login": address},
        {"navigation": (("Evil", address),)},
    ):
        with pytest.raises(Misuse, match="no path on this origin"):
            Pages(**wrong)


def test_a_folder_that_is_missing_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no folder"):
        Pages(templates=tmp_path / "nothing")
