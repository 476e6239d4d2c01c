"""How Sphinx builds the manual: `make docs`."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import reference

import keybearer

project = "keybearer"
author = "keybearer contributors"
copyright = "keybearer contributors"
release = keybearer.__version__
version = release

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
highlight_language = "text"
nitpicky = True

html_theme = "furo"
html_title = "keybearer"
html_copy_source = False
html_show_sourcelink = False


def _expand(_app: object, _page: str, source: list[str]) -> None:
    source[0] = reference.expand(source[0])


def setup(app: Any) -> None:
    """Puts the parts that are made of the code into their pages."""
    app.connect("source-read", _expand)
