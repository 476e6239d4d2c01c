"""The code blocks of the README and the manual, and what runs them.

    ```python      runs; the blocks of a page share one namespace and one event loop
    ```bash        runs; the blocks of a page share one shell with `set -euo pipefail`
    ```console     runs in the same shell: `$ command`, then its output; `…` stands for anything
    ```yaml json ini javascript    are parsed
    ```text nginx caddyfile go …   are only shown

A block of the first three that cannot run here says so, with the reason, beside its language:
`not-run="installs packages"`.
"""

import ast
import configparser
import inspect
import json
import os
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

RUN = frozenset({"python", "bash", "console"})
PARSED = frozenset({"yaml", "json", "ini", "javascript"})
SHOWN = frozenset({"text", "nginx", "caddyfile", "go", "php", "http", "makefile"})

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<text>.*?)^ *(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_REASON = re.compile(r'\bnot-run="(?P<reason>[^"]{5,})"')


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One fenced block; `line` is that of its fence."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None = None

    @property
    def place(self) -> str:
        """Where it stands, for a message."""
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that name a language, in order."""
    text = page.read_text("utf-8")
    found = []
    for match in _FENCE.finditer(text):
        info = match["info"].strip()
        reason = _REASON.search(info)
        found.append(
            Block(
                page=str(page.relative_to(ROOT)),
                line=text.count("\n", 0, match.start()) + 1,
                language=info.split(" ", 1)[0],
                text=textwrap.dedent(match["text"]),
                not_run=reason["reason"] if reason else None,
            )
        )
    return found


def all_blocks() -> list[Block]:
    """Every block of every page."""
    return [block for page in PAGES for block in blocks_of(page)]


# --- python ---------------------------------------------------------------------------------


async def run_python(blocks: list[Block], namespace: dict[str, Any]) -> None:
    """Runs the blocks in order; `await` may stand anywhere, as in `python -m asyncio`."""
    for block in blocks:
        source = "\n" * block.line + block.text  # so that a traceback names the page's line
        code = compile(source, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)  # noqa: S307 -- our own pages
        if inspect.iscoroutine(result):
            await result


# --- shell ----------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A command of a console block with the output that the page shows."""

    place: str
    command: str
    shown: str


def run_shell(blocks: list[Block], folder: Path, environment: dict[str, str]) -> list[str]:
    """Runs the blocks in order in one shell; gives what went otherwise than the page says."""
    script = ["set -euo pipefail"]
    steps: list[Step] = []
    for block in blocks:
        script.append(f"echo '--- {block.place}' >&2")
        if block.language == "bash":
            script.append(block.text)
            continue
        for step in steps_of(block):
            script.append(f"{{ {step.command}\n}} >{folder}/step-{len(steps)} 2>&1 || true")
            steps.append(step)
    file = folder / "blocks.sh"
    file.write_text("\n".join(script) + "\n")
    done = subprocess.run(
        ["bash", file], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    wrong = []
    if done.returncode:
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        wrong.append(f"the shell ended with {done.returncode}:\n{said}")
    for number, step in enumerate(steps):
        output = folder / f"step-{number}"
        said = output.read_text() if output.exists() else "(not reached)"
        if not matches(step.shown, said):
            wrong.append(f"{step.place}: {step.command}\nsays:\n{said}\nthe page:\n{step.shown}")
    return wrong


def steps_of(block: Block) -> Iterator[Step]:
    """The commands of a console block; a line that ends in a backslash goes on."""
    command: list[str] = []
    shown: list[str] = []
    for line in [*block.text.splitlines(), "$ "]:
        if line.startswith("$ "):
            if command:
                yield Step(
                    place=block.place, command="\n".join(command), shown="\n".join(shown).strip()
                )
            command, shown = [line[2:]], []
        elif command and command[-1].endswith("\\") and not shown:
            command.append(line)
        elif command:
            shown.append(line)
        else:
            raise ValueError(f"{block.place}: a console block begins with `$ `")


def matches(shown: str, said: str) -> bool:
    """Whether an output is what the page shows, `…` being anything, line breaks too."""
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


# --- others ---------------------------------------------------------------------------------


def parse(block: Block) -> None:
    """Raises whatever the language's parser raises."""
    match block.language:
        case "yaml":
            assert list(yaml.safe_load_all(block.text))
        case "json":
            json.loads(block.text)
        case "ini":
            # systemd repeats names, which configparser takes for a mistake unless told not to.
            parser = configparser.ConfigParser(strict=False, interpolation=None)
            parser.read_string(block.text)
            assert parser.sections()
        case "javascript":
            subprocess.run(
                [_node(), "--check", "--input-type=module", "-"],
                input=block.text, text=True, check=True, capture_output=True,
            )  # fmt: skip


def _node() -> str:
    """Playwright brings a Node of its own."""
    import playwright

    return str(Path(playwright.__file__).parent / "driver" / "node")


def quiet_environment() -> dict[str, str]:
    """This environment without settings of ours, with the project's commands first."""
    kept = {name: value for name, value in os.environ.items() if "KEYBEARER" not in name}
    return {**kept, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
