"""Spans for OpenTelemetry, where it is installed and the host app has set it up.

Everybody else pays one question for each span, which only what is slow anyway has. No span has a
credential, an address or the words of an error in it.
"""

import contextlib
from collections.abc import Iterator

from keybearer.domain.errors import Failure, Unavailable
from keybearer.domain.ports import Span, Tracer

try:
    from opentelemetry import trace
except ImportError:  # the extra `otel` is not installed
    INSTALLED = False
else:
    INSTALLED = True


class _NoSpan:
    def tell(self, **facts: str | int) -> None:
        """Nothing."""


_NO_SPAN = _NoSpan()


class NoTracer:
    """Nobody traces."""

    @contextlib.contextmanager
    def span(self, _name: str) -> Iterator[Span]:
        """Nothing."""
        yield _NO_SPAN


NO_TRACER = NoTracer()


class _OpenSpan:
    def __init__(self, span: "trace.Span") -> None:
        self._span = span

    def tell(self, **facts: str | int) -> None:
        """Facts become attributes `keybearer.…`."""
        self._span.set_attributes({f"keybearer.{name}": fact for name, fact in facts.items()})

    def fail(self, error: BaseException) -> None:
        """A refusal is an outcome like others; what is lost or broken is an error."""
        if isinstance(error, Failure | Unavailable):
            self.tell(outcome=error.code)
        else:
            self.tell(outcome=type(error).__name__)
        if not isinstance(error, Failure):
            self._span.set_status(trace.StatusCode.ERROR)


class OtelTracer:
    """Spans of the tracer provider that is set globally, as soon as one is."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("keybearer")

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[Span]:
        """A span below the current one."""
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            yield _NO_SPAN  # nobody has set one
            return
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as begun:
            span = _OpenSpan(begun)
            try:
                yield span
            except BaseException as error:
                span.fail(error)
                raise


def find_tracer() -> Tracer:
    """OpenTelemetry's, where it is installed."""
    return OtelTracer() if INSTALLED else NO_TRACER
