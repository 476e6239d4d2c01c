"""One spelling for each e-mail address, found before anything else.

Sign-up, login, throttling and uniqueness all see the normal form alone: two spellings of one
address must never be two accounts or two throttles (GHSA-7rqj-j65f-68wh, CVE-2025-6004), and two
addresses that look alike must not be written alike. So the local part is the dot-atom of RFC 5321
in ASCII, folded to lower case; quoted local parts, address literals and lists are refused; and a
domain beyond ASCII becomes punycode, or is refused where it mixes scripts.
"""

from __future__ import annotations

import re
import unicodedata

MAX_ADDRESS = 254
MAX_LOCAL_PART = 64
MAX_LABEL = 63

_LONGEST_INPUT = 1024
_ASCII_SPACE = " \t\r\n\f\v"
_EXAMPLE = "An e-mail address looks like name@example.com."

_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL_PART = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

# Scripts that one language writes together (UTS 39, "highly restrictive", without Latin).
_TOGETHER = (
    frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    frozenset({"CJK", "BOPOMOFO"}),
    frozenset({"CJK", "HANGUL"}),
)


def normalise(address: str) -> str:
    """The normal form of an address: ASCII, lower case, at most 254 characters.

    ASCII white space around it is dropped. ValueError with a sentence for whatever is not exactly
    one address. Time is linear in the length, and everything over 1024 characters is refused first.
    """
    if len(address) > _LONGEST_INPUT:
        raise ValueError(f"An e-mail address has at most {MAX_ADDRESS} characters.")
    local, at, domain = address.strip(_ASCII_SPACE).partition("@")
    if not at or "@" in unicodedata.normalize("NFKC", local + domain):
        raise ValueError(f"An e-mail address has exactly one @. {_EXAMPLE}")
    local = local.lower() if local.isascii() else local
    if len(local) > MAX_LOCAL_PART:
        raise ValueError(f"What stands before the @ has at most {MAX_LOCAL_PART} characters.")
    if not _LOCAL_PART.fullmatch(local):
        raise ValueError(
            "What stands before the @ is made of the letters a to z, digits and "
            f"!#$%&'*+-/=?^_`{{|}}~, with single dots between. {_EXAMPLE}"
        )
    normal = f"{local}@{_normal_domain(domain)}"
    if len(normal) > MAX_ADDRESS:
        raise ValueError(f"An e-mail address has at most {MAX_ADDRESS} characters.")
    return normal


def _normal_domain(domain: str) -> str:
    labels = [_normal_label(label) for label in domain.split(".")]
    if labels == ["localhost"]:
        return "localhost"
    if len(labels) < 2 or labels[-1].isdigit():
        raise ValueError(f"What stands after the @ is the name of a domain. {_EXAMPLE}")
    return ".".join(labels)


def _normal_label(label: str) -> str:
    if not label.isascii():
        label = _punycode(label)
    label = label.lower()
    if not _LABEL.fullmatch(label):
        raise ValueError(
            "Each part of the domain is 1 to 63 letters, digits and hyphens, "
            f"with a hyphen neither first nor last. {_EXAMPLE}"
        )
    return label


def _punycode(label: str) -> str:
    """The ASCII form of one label, where IDNA 2003 and 2008 agree on it.

    The codec is that of 2003, which folds a sharp s, a final sigma or a full-width letter into
    another name. What does not come back as it went in is refused, so that no mail goes to a domain
    that nobody typed.
    """
    lower = label.lower()
    if len(label) <= MAX_LABEL and _is_one_script(lower):
        try:
            ascii_form = lower.encode("idna")
            if ascii_form.decode("idna") == lower:
                return ascii_form.decode("ascii")
        except UnicodeError:
            pass  # said below
    raise ValueError(
        "Each part of a domain is written in one script and in its usual letters; "
        "if the domain is right, write it in its xn-- form."
    )


def _is_one_script(label: str) -> bool:
    """Whether a label is letters, marks, digits and inner hyphens of one script.

    The first word of a letter's Unicode name is its script, near enough.
    """
    if label.startswith("-") or label.endswith("-"):
        return False
    scripts: set[str] = set()
    for letter in label:
        if letter == "-" or (letter.isascii() and letter.isdigit()):
            continue
        if unicodedata.category(letter)[0] not in "LMN":
            return False
        scripts.add(unicodedata.name(letter, "").partition(" ")[0])
    return len(scripts) == 1 or any(scripts <= together for together in _TOGETHER)
