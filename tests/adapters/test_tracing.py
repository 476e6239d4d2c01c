"""Spans of what is slow, with outcomes and without secrets."""

from collections.abc import Iterator

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from keybearer import Failure, Refusal, Session, Unavailable
from keybearer.adapters import tracing
from keybearer.adapters.tracing import NO_TRACER, OtelTracer, find_tracer
from keybearer.operations.app import App
from tests.people import StandingClock, log_in, make_key, person
from tests.web.losses import lose_database


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What a host app sets up, for one test: the API lets it be set once."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


FLUSH = "keybearer.flush"


def spans_of(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    """All but flushes, which come when they come."""
    spans = exporter.get_finished_spans()
    exporter.clear()
    return [span for span in spans if span.name != FLUSH]


def told(exporter: InMemorySpanExporter) -> list[tuple[str, dict[str, object]]]:
    return [(span.name, dict(span.attributes or {})) for span in spans_of(exporter)]


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans_of(exporter)
    return span


async def test_a_check_is_traced_when_memory_has_no_answer(
    exporter: InMemorySpanExporter, app: App, client: httpx2.AsyncClient
) -> None:
    await person(app)
    key = await make_key(client, await log_in(client), name="ci")
    exporter.clear()
    headers = [(b"x-api-key", key["key"].encode())]
    assert isinstance(await app.verifier.verify(headers, None), Session)
    accepted = {"keybearer.kind": "key", "keybearer.outcome": "accepted"}
    assert told(exporter) == [("keybearer.verify", accepted)]
    assert isinstance(await app.verifier.verify(headers, None), Session)
    assert app.verifier.warm(headers, None) is not None
    assert told(exporter) == []
    app.verifier.cache.clear()
    needed = frozenset({"users:write"})
    assert isinstance(await app.verifier.verify(headers, None, needed), Refusal)
    ((_, refused),) = told(exporter)
    assert refused == {"keybearer.kind": "key", "keybearer.outcome": "INSUFFICIENT_SCOPE"}
    assert app.verifier.misses == 3  # the login, too


@pytest.mark.parametrize(
    ("credential", "kind"), [(b"nonsense", "session"), (b"kb_nonsense", "none"), (b"kbr_x", "none")]
)
async def test_what_is_not_ours_is_traced_and_no_miss(
    exporter: InMemorySpanExporter, app: App, credential: bytes, kind: str
) -> None:
    verdict = await app.verifier.verify([(b"authorization", b"Bearer " + credential)], None)
    assert isinstance(verdict, Refusal)
    ((_, facts),) = told(exporter)
    assert facts == {"keybearer.kind": kind, "keybearer.outcome": verdict.code}
    assert app.verifier.misses == 0


async def test_a_lost_database_is_an_error(
    exporter: InMemorySpanExporter, app: App, clock: StandingClock
) -> None:
    await lose_database(app)
    clock.advance(60_000)
    with pytest.raises(Unavailable):
        await app.verifier.verify([(b"authorization", b"Bearer " + b"x" * 32)], None)
    span = only(exporter)
    assert span.attributes == {"keybearer.kind": "session", "keybearer.outcome": "UNAVAILABLE"}
    assert span.status.status_code is StatusCode.ERROR
    assert not span.status.description
    assert not span.events  # the words of an error may be anything


async def test_operations_and_changes_are_traced(
    exporter: InMemorySpanExporter, app: App, client: httpx2.AsyncClient
) -> None:
    await person(app)
    login = await log_in(client)
    key = await make_key(client, login, name="ci")
    exporter.clear()
    revoked = await client.post(
        "/api/auth/api-key/delete", json={"keyId": key["id"]}, headers=login
    )
    assert revoked.status_code == 200
    settle, operation = spans_of(exporter)
    assert settle.parent is not None
    assert operation.context is not None
    assert settle.parent.span_id == operation.context.span_id
    assert settle.attributes == {"keybearer.nodes": 1, "keybearer.waited_ms": 0}
    assert operation.name == "keybearer.deleteApiKey"
    assert operation.attributes == {"keybearer.outcome": "ok"}
    await client.post("/api/auth/api-key/delete", json={"keyId": "none"}, headers=login)
    span = only(exporter)
    assert span.attributes == {"keybearer.outcome": "KEY_NOT_FOUND"}
    assert span.status.status_code is StatusCode.UNSET  # a refusal is no error


async def test_a_flush_says_how_much_it_writes(
    exporter: InMemorySpanExporter, app: App, client: httpx2.AsyncClient
) -> None:
    await person(app)
    key = await make_key(client, await log_in(client), name="ci")
    await app.verifier.usage.flush(app.clock.now())
    exporter.clear()
    await client.get("/api/auth/forward", headers={"x-api-key": key["key"]})
    await app.verifier.usage.flush(app.clock.now())
    (flush,) = [span for span in exporter.get_finished_spans() if span.name == FLUSH]
    assert flush.attributes == {"keybearer.keys": 1, "keybearer.counts": 1}


async def test_no_span_has_a_secret_or_a_name(
    exporter: InMemorySpanExporter, app: App, client: httpx2.AsyncClient
) -> None:
    await person(app)
    login = await log_in(client)
    key = await make_key(client, login, name="nightly")
    await client.get("/api/auth/forward", headers={"x-api-key": key["key"]})
    await app.verifier.usage.flush(app.clock.now())
    text = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "keybearer.createApiKey" in text
    secrets = [key["key"], login["authorization"].removeprefix("Bearer ")]
    assert [each for each in [*secrets, "ada@example.com", "nightly"] if each in text] == []


def test_what_is_broken_is_told_by_its_type(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ZeroDivisionError), OtelTracer().span("keybearer.x"):
        raise ZeroDivisionError("words")
    span = only(exporter)
    assert span.attributes == {"keybearer.outcome": "ZeroDivisionError"}
    assert span.status.status_code is StatusCode.ERROR


def test_nobody_who_traces_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(find_tracer(), OtelTracer)
    with find_tracer().span("keybearer.x") as span:
        span.tell(outcome="ok")
        assert not trace.get_current_span().is_recording()
    with pytest.raises(Failure), find_tracer().span("keybearer.x"):
        raise Failure("NOT_FOUND")
    monkeypatch.setattr(tracing, "INSTALLED", False)
    assert find_tracer() is NO_TRACER
