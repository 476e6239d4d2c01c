"""Which of our languages a browser's Accept-Language asks for (RFC 9110 section 12.5.4)."""

from collections.abc import Sequence

_LONGEST = 1_000
_MOST = 20


def best_locale(accepted: bytes | None, ours: Sequence[str]) -> str:
    """The language of ours that is liked best; the first one where none is.

    `pt` and `pt-PT` find `pt-BR`, as a reader of one reads the other; `*` means any.
    """
    wanted: list[tuple[float, int, str]] = []
    text = (accepted or b"")[:_LONGEST].decode("latin-1")
    for place, item in enumerate(text.split(",")[:_MOST]):
        tag, _, weight = item.strip().partition(";")
        quality = _quality(weight)
        if tag and quality > 0:
            wanted.append((-quality, place, tag.strip().lower()))
    for _, _, tag in sorted(wanted):
        for matches in (_same, _same_language):
            for locale in ours:
                if matches(tag, locale.lower()):
                    return locale
    return ours[0]


def _quality(weight: str) -> float:
    name, _, value = weight.strip().partition("=")
    if not name:
        return 1.0
    try:
        quality = float(value) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def _same(tag: str, locale: str) -> bool:
    return tag == locale


def _same_language(tag: str, locale: str) -> bool:
    return tag.partition("-")[0] == locale.partition("-")[0]
