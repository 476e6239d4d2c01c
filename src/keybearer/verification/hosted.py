"""What functions of the host app give; one that fails, or gives no answer, is a lost dependency.

Its text may hold a credential, so the log has the name of the option and of the exception alone.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from keybearer.domain.errors import KeybearerError, Unavailable


def asked(option: str, function: Callable[..., Any], *args: object) -> Any:
    """What a function gives.

    Raises:
        Unavailable: it raised.
    """
    try:
        return function(*args)
    except KeybearerError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever the app may raise
        _failed(option, error)


async def awaited(option: str, function: Callable[..., Awaitable[Any]], *args: object) -> Any:
    """What an async function gives; raises as `asked`."""
    try:
        return await function(*args)
    except KeybearerError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever the app may raise
        _failed(option, error)


def odd(option: str, wanted: str) -> Unavailable:
    """The loss that it is where a function gave something else than an answer."""
    return Unavailable(f"{option} must give {wanted}")


def _failed(option: str, error: Exception) -> NoReturn:
    raise Unavailable(f"{option} raised {type(error).__name__}") from error
