"""The options of a configuration, looked at before the app starts: a wrong one is told at once."""

import inspect
import re
from collections.abc import Iterable

from keybearer.domain.errors import Misuse
from keybearer.domain.permissions import stated
from keybearer.operations.keyconfig import MAX_NAME, KeyConfig
from keybearer.settings import Settings

MOST_SHOWN = 8
"""Characters of a key's secret that may stay visible."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_NOT_KEYS = frozenset({"authorization", "cookie", "proxy-authorization"})


def header_names(names: object) -> tuple[bytes, ...]:
    """The names of more headers for keys, in lower case.

    Raises:
        Misuse: they are no list of names of headers, or one has a meaning of its own.
    """
    found = [] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    fit = all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in found)
    if isinstance(names, str) or not isinstance(names, Iterable) or not fit:
        raise Misuse('headers= takes a list of names of headers, as ["X-Acme-Key"]')
    lower = [name.lower() for name in found]
    if _NOT_KEYS.intersection(lower):
        raise Misuse("headers= takes neither Authorization nor Cookie: getter= reads those")
    return tuple(name.encode() for name in lower)


def check_functions(*, config: KeyConfig, getter: object) -> None:
    """Raises Misuse for an option that must be a function and is none, or one of the other sort."""
    plain = {"getter": getter, "generator": config.generator, "validator": config.validator}
    for name, function in plain.items():
        if function is not None and (not callable(function) or _is_async(function)):
            raise Misuse(f"{name}= takes a function that is not async")
    if config.role is not None and not callable(config.role):
        raise Misuse("role_in= takes an async function of the organization's and the user's id")


def check_config(config: KeyConfig) -> None:
    """Raises Misuse for what is wrong by itself, whatever the settings are."""
    id: object = config.id
    if not isinstance(id, str) or not re.fullmatch(r"[\x21-\x7e]{1,64}", id):
        raise Misuse("config_id= takes 1 to 64 characters of ASCII, without spaces")
    lengths: object = config.name_length
    if not isinstance(lengths, tuple | list) or [type(each) for each in lengths] != [int, int]:
        raise Misuse("name_length= takes two numbers: (1, 32)")
    least, most = lengths
    if not 0 <= least <= most <= MAX_NAME or not most:
        raise Misuse(f"name_length= takes the least and the most, up to {MAX_NAME}: (1, 32)")
    if config.default_permissions is not None and not callable(config.default_permissions):
        stated(config.default_permissions, "default_permissions=")


def check_within(config: KeyConfig, settings: Settings, catalogue: frozenset[str]) -> None:
    """Raises Misuse for options that contradict each other, or the settings."""
    whole = config.within(settings)
    shown = whole.starting_characters
    for prefix in whole.prefixes or ():
        most = len(prefix) + MOST_SHOWN
        if shown is not None and (type(shown) is not int or not 1 <= shown <= most):
            raise Misuse(
                f"starting_characters= takes 1 to {most}: the prefix {prefix!r} and up to "
                f"{MOST_SHOWN} characters of the secret"
            )
    longest, usual = whole.max_lifetime, whole.default_lifetime
    if longest is not None and whole.min_lifetime > longest:
        raise Misuse("min_lifetime= is longer than the longest life (max_lifetime=)")
    if usual is not None and usual < whole.min_lifetime:
        raise Misuse("default_lifetime= (KEY_DEFAULT_LIFETIME) is shorter than min_lifetime=")
    given = whole.default_permissions
    if given is not None and not callable(given) and catalogue:
        beyond = sorted(stated(given, "default_permissions=") - catalogue)
        if beyond:
            raise Misuse(f"default_permissions= names {', '.join(beyond)}, which no key can have")


def _is_async(function: object) -> bool:
    call = getattr(type(function), "__call__", None)  # noqa: B004 -- whether it is async
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
