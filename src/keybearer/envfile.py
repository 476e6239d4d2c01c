"""The file `.env`: a line that names us is a setting, or is told.

What a line means is python-dotenv's business, which leaves out what it cannot read: `NAME: nobody`
would silently be the default, and that may be the open one. Lines of others are not ours to judge.
"""

import re
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from keybearer.domain.errors import Misuse

_NAME = re.compile(r"[A-Za-z0-9_]+")


def read(file: Path, ours: re.Pattern[str]) -> dict[str, str]:
    """What the file sets; nothing where there is none.

    Args:
        ours: finds our names.

    Raises:
        Misuse: the file cannot be read, or one of our lines; the text shows nothing of the line.
    """
    try:
        with file.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Misuse(f"{file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Misuse(f"{file} line {line}: is not UTF-8") from None
    found: dict[str, str] = {}
    for binding in bindings:
        if _broken(binding, ours):
            raise Misuse(f"{file} line {_line(binding)}: takes NAME=value")
        if binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found


def _broken(binding: Binding, ours: re.Pattern[str]) -> bool:
    """Whether it may be a setting that somebody means, and is none."""
    if binding.error:
        return ours.search(binding.original.string) is not None
    if binding.key is None or not ours.match(binding.key):
        return False
    return binding.value is None or not _NAME.fullmatch(binding.key)


def _line(binding: Binding) -> int:
    """Where it begins: the parser counts the blank lines before it in."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
