"""The process that answers: what it serves."""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

    from keybearer.auth import Auth


def application(
    keywords: dict[str, Any],
    *,
    examples: "Callable[[Auth], ASGIApp] | None",
    access_log: bool,
    parent: int,
) -> "ASGIApp":
    """What the worker serves; called in the worker's process."""
    from keybearer.auth import Auth
    from keybearer.cli.ending import Ending
    from keybearer.cli.logs import AccessLog
    from keybearer.cli.slow import SlowBodies
    from keybearer.web.host import KnownHosts
    from keybearer.web.mount import no_app
    from keybearer.web.pages.options import Pages

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent passes on what it means
    _end_with(parent)
    auth = Auth(**keywords)
    app: ASGIApp = auth.mount(
        no_app if examples is None else examples(auth),
        pages=Pages(root=True, example=None if examples is None else "/api/protected-endpoint"),
    )
    app = KnownHosts(SlowBodies(app), auth.settings)
    ending = Ending(AccessLog(app) if access_log else app)
    ending.listen()
    return ending


def _end_with(parent: int) -> None:
    """Asks the kernel for a SIGTERM when the parent is gone (Linux).

    A parent that was killed cannot stop the worker, which would hold the port and the lock.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(1)
