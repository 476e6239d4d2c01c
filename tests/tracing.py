"""Keeps the tracer of the coverage out of SQLAlchemy's greenlets.

Each statement to PostgreSQL runs in a greenlet of its own, where SQLAlchemy and its driver are
called and hardly anything of ours. Coverage can follow greenlets, but then looks up in which one it
is at each call and each return of any function: a quarter of what a test costs. So nothing is
traced while another greenlet than the thread's first one runs, and each thread has one stack of
calls, as coverage expects.
"""

import sys
import threading
from types import FrameType
from typing import Any

import greenlet

_kept = threading.local()


def keep_out() -> None:
    """Call it when the tracer is set, in the main thread; does nothing where there is none."""
    tracer = threading.gettrace()
    if tracer is None:
        return

    def begin(frame: FrameType, event: Any, arg: Any) -> Any:
        """A thread's first call."""
        greenlet.settrace(_switched)
        return tracer(frame, event, arg)

    greenlet.settrace(_switched)
    threading.settrace(begin)


def _switched(_event: str, greenlets: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
    left, entered = greenlets
    if entered.parent is None:
        sys.settrace(getattr(_kept, "tracer", None))
    elif left.parent is None:
        _kept.tracer = sys.gettrace()
        sys.settrace(None)
