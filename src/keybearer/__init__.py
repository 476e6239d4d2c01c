"""keybearer: API keys and bearer tokens for Python."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keybearer.auth import Auth as Auth
    from keybearer.domain.errors import Failure as Failure
    from keybearer.domain.errors import KeybearerError as KeybearerError
    from keybearer.domain.errors import Misuse as Misuse
    from keybearer.domain.errors import Unavailable as Unavailable
    from keybearer.domain.model import Anonymous as Anonymous
    from keybearer.domain.model import Refusal as Refusal
    from keybearer.domain.model import Session as Session
    from keybearer.plugins import api_key as api_key
    from keybearer.plugins import bearer as bearer
    from keybearer.plugins import jwt as jwt
    from keybearer.web.pages.options import Pages as Pages

__all__ = [
    "Anonymous",
    "Auth",
    "Failure",
    "KeybearerError",
    "Misuse",
    "Pages",
    "Refusal",
    "Session",
    "Unavailable",
    "api_key",
    "bearer",
    "jwt",
]
__version__ = version("keybearer")

# Where each public name lives; imported when it is asked for, so that `keybearer --help` does
# not wait for the database drivers.
_HOMES = {
    "Auth": "keybearer.auth",
    "Failure": "keybearer.domain.errors",
    "KeybearerError": "keybearer.domain.errors",
    "Misuse": "keybearer.domain.errors",
    "Unavailable": "keybearer.domain.errors",
    "Anonymous": "keybearer.domain.model",
    "Refusal": "keybearer.domain.model",
    "Session": "keybearer.domain.model",
    "api_key": "keybearer.plugins",
    "bearer": "keybearer.plugins",
    "jwt": "keybearer.plugins",
    "Pages": "keybearer.web.pages.options",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*_HOMES, "__version__"]
