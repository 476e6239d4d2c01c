"""How the pages look and where they lie: what a host app may say."""

import re
from pathlib import Path

import msgspec

from keybearer.domain.errors import Misuse

_PATH = re.compile(r"((/[A-Za-z0-9._~-]+)+)?")
_OWN = re.compile(r"/(?!/)[!-\[\]-~]*")
"""A path on this origin: `//host` is another one, and browsers read a backslash as a slash."""


class Pages(msgspec.Struct, frozen=True, kw_only=True):
    """The pages of one mounted keybearer; `Auth.mount(app, pages=Pages(…))`.

    Attributes:
        path: below which they lie, as `/settings`: `/settings/en/account/api-keys`.
        brand: the name in the corner, in titles and in mails' place: your product's.
        home: where the brand leads; the list of keys unless given.
        navigation: more entries of the menu: (text, path).
        templates: a folder whose templates are taken before ours, by the same names.
        stylesheet: the path of a stylesheet that is loaded after ours, to set its custom
            properties: `:root { --accent: #7a2ea0; }`.
        login: where people log in who are the host's own users (`identify=`).
        example: the path of an endpoint of yours, for the call that the pages show; `/api/…`
            unless given.
        root: whether `/` is ours too, and every address that begins with a locale: for a server
            of which these are the only pages.

    Raises:
        Misuse: a path is none of this origin, or the folder is missing.
    """

    path: str = ""
    brand: str = "keybearer"
    home: str | None = None
    navigation: tuple[tuple[str, str], ...] = ()
    templates: Path | None = None
    stylesheet: str | None = None
    login: str | None = None
    example: str | None = None
    root: bool = False

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise Misuse(f"pages path {self.path!r}: takes a path, as /settings, or nothing")
        led_to = (
            self.home,
            self.stylesheet,
            self.login,
            self.example,
            *(path for _, path in self.navigation),
        )
        for path in led_to:
            if path is not None and not _OWN.fullmatch(path):
                raise Misuse(f"pages: {path!r} is no path on this origin, as /about")
        if self.templates is not None and not self.templates.is_dir():
            raise Misuse(f"pages: there is no folder {self.templates}")
