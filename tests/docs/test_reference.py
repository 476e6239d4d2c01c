"""What the manual lists is what there is."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from docs import reference
from keybearer.domain.errors import PROBLEMS
from keybearer.settings import ALIASES, PREFIX, Settings
from keybearer.settingvalues import PARSERS
from tests.docs.blocks import PAGES, ROOT

DOCS = ROOT / "docs"
SETTINGS_ROW = re.compile(r"^\| `([A-Z_]+)` \| (none|`([^`]+)`) \| ", re.MULTILINE)
MODULES = sorted(
    str(path.relative_to(ROOT / "src" / "keybearer"))
    for path in (ROOT / "src" / "keybearer").rglob("*.py")
    if path.name != "__init__.py" and "migrations" not in path.parts
)


def text_of(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def settings_rows() -> dict[str, str | None]:
    return {name.lower(): default or None
            for name, _, default in SETTINGS_ROW.findall(text_of("settings.md"))}  # fmt: skip


def test_settings_lists_every_setting_once() -> None:
    rows = [name.lower() for name, _, _ in SETTINGS_ROW.findall(text_of("settings.md"))]
    assert sorted(rows) == sorted(PARSERS) == sorted(Settings.__struct_fields__)


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_settings_gives_the_default_that_holds(name: str) -> None:
    written = settings_rows()[name]
    holds = getattr(Settings(), name)
    if written is None:
        assert not holds
    else:
        assert PARSERS[name](written) == holds


def test_every_variable_that_a_page_names_is_a_setting() -> None:
    named = {
        (page.name, variable)
        for page in PAGES
        for variable in re.findall(
            rf"(?<!secrets\.)\b{PREFIX}([A-Z][A-Z_]*[A-Z])\b", page.read_text("utf-8")
        )
    }
    known = {*(name.upper() for name in PARSERS), "TOKEN", "URL"}
    known.add("TOKEN_MANGEMENT")  # what a page says of a typing mistake
    assert {(page, name) for page, name in named if name not in known} == set()


def test_http_has_every_operation_and_every_code() -> None:
    page = reference.expand(text_of("http.md"))
    missing = [
        f"{method} {path}"
        for each in reference.operations()
        for method, path in ((each.method, each.path), *each.aliases)
        if f"`{method} {path}`" not in page
    ]
    assert missing == []
    assert [code for code in PROBLEMS if f"`{code}` |" not in page] == []


def test_http_has_every_field_that_an_operation_takes() -> None:
    page = reference.expand(text_of("http.md"))
    fields = {
        field.encode_name
        for each in reference.operations()
        for field in msgspec.structs.fields(each.input)
    }
    assert [name for name in fields if f"| `{name}` |" not in page] == []


async def test_http_has_every_path_that_is_no_operation(tmp_path: Path) -> None:
    from keybearer.auth import Auth
    from keybearer.web.extras import ahead, extra_routes

    auth = Auth(f"sqlite:///{tmp_path / 'k.db'}", serving=False)
    async with auth.lifespan():
        routes = extra_routes(auth, await auth.running(), "/api/auth")
    paths = {*ahead(auth, "/api/auth"), *(str(getattr(route, "path", "?")) for route in routes)}
    page = text_of("http.md")
    assert paths
    assert {path for path in paths if f"{path}`" not in page and "/static/" not in path} == set()


def test_pages_name_no_code_that_does_not_exist() -> None:
    named = {
        (page.name, code)
        for page in PAGES
        for code in re.findall(r"`([A-Z]+_[A-Z_]+)`", page.read_text("utf-8"))
    }
    known = {*PROBLEMS, *(name.upper() for name in PARSERS), *ALIASES}
    assert {
        (page, code) for page, code in named if code not in known and PREFIX not in code
    } == set()


def test_cli_has_every_command_with_every_option() -> None:
    page = reference.expand(text_of("cli.md"))
    for path, command in reference.commands():
        assert f"`{path}`" in page
        for parameter in command.params:
            assert all(option in page for option in parameter.opts if option.startswith("-"))


def test_pages_call_no_command_that_does_not_exist() -> None:
    known = {path for path, _ in reference.commands()}
    for page in PAGES:
        for words in re.findall(r"`keybearer ([a-z][a-z -]*?[a-z])`", page.read_text("utf-8")):
            assert f"keybearer {words}" in known, f"{page.name}: keybearer {words}"


@pytest.mark.parametrize("module", MODULES)
def test_architecture_names_every_module(module: str) -> None:
    assert f"`{module}`" in text_of("architecture.md")


def test_architecture_names_no_module_that_is_gone() -> None:
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", text_of("architecture.md"))
    assert {name for name in named if not (ROOT / "src" / "keybearer" / name).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_other_pages_and_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_machine_path(page: Path) -> None:
    assert not re.search(r"(?<![A-Za-z.])/(root|work|home)/", page.read_text("utf-8"))


def test_the_manual_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "trees", DOCS, tmp_path / "html"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "http.html").exists()
