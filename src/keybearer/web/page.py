"""The frame of every HTML page that has no framework: strict CSP, own style, no outside host."""

import functools
import hashlib
from html import escape
from importlib.resources import files

PAGE_CSP = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
STATIC = {
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "pages.css": "text/css; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "reference.js": "text/javascript; charset=utf-8",
}
"""The files of `web/static/` by name, and what they are."""


def page(*, title: str, base: str, body: str, head: str = "", script: str | None = None) -> str:
    """A whole page.

    Args:
        title: plain text.
        base: below which `static/` lies.
        body, head: HTML that is safe already.
        script: the name of an own module.
    """
    loaded = ""
    if script is not None:
        loaded = f'<script type="module" src="{escape(base)}/static/{escape(script)}"></script>'
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · keybearer</title>
<link rel="stylesheet" href="{escape(base)}/static/page.css">
{head}{loaded}
</head>
<body>
{body}
</body>
</html>
"""


@functools.cache
def static(name: str) -> bytes:
    """One of the files in `STATIC`."""
    return (files("keybearer.web") / "static" / name).read_bytes()


def versioned(base: str, name: str) -> str:
    """The address of a file with what is in it: it changes when the file does."""
    return f"{base}/static/{name}?v={_version(name)}"


@functools.cache
def _version(name: str) -> str:
    return hashlib.sha256(static(name)).hexdigest()[:12]
