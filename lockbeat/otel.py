"""Traces and metrics by OpenTelemetry: `instrument(beat)`, `instrument(lb)`. Extra `otel`, which is its API alone.

Spans by the semantic conventions of messaging: `send QUEUE` around a spawn, `process QUEUE` around a function that a worker
runs, `settle QUEUE` while the store is told how it ended. The context travels in the task's headers, as W3C has it. A run is
linked to it rather than its child: it may come hours later, more than once, and long after its trace was shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lockbeat.errors import MissingExtra

if TYPE_CHECKING:
    from lockbeat.events import Hooks

SYSTEM = "lockbeat"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Seconds; as the conventions advise."""
T = TypeVar("T", bound="Message")


class Message(Protocol):
    """What is spawned."""

    @property
    def name(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def headers(self) -> Any: ...


class Claimed(Message, Protocol):
    """An attempt."""

    @property
    def id(self) -> str: ...
    @property
    def job(self) -> str: ...
    @property
    def slot_ms(self) -> int: ...
    @property
    def attempt(self) -> int: ...
    @property
    def fence(self) -> int: ...
    @property
    def owner(self) -> str: ...


class HasEvents(Protocol):
    """A beat or a client, blocking or not."""

    @property
    def events(self) -> Hooks: ...


def instrument(*clients: HasEvents, tracer_provider: Any = None, meter_provider: Any = None) -> None:
    """Have beats and clients make spans and metrics from now on. Again changes nothing.

    tracer_provider, meter_provider: None: the program's.

    Raises: MissingExtra: OpenTelemetry's API is not there.
    """
    spans = Spans(tracer_provider, meter_provider)
    for client in clients:
        client.events.spans = client.events.spans or spans


def uninstrument(*clients: HasEvents) -> None:
    """Undo `instrument`."""
    for client in clients:
        client.events.spans = None


class Spans:
    """Makes spans and metrics."""

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None) -> None:
        try:
            from opentelemetry import context, metrics, propagate, trace
        except ImportError:
            raise MissingExtra("traces need OpenTelemetry's API: pip install 'lockbeat[otel]'") from None
        self._trace, self._context, self._propagate = trace, context, propagate
        self._tracer = trace.get_tracer("lockbeat", None, tracer_provider)
        meter = metrics.get_meter("lockbeat", "", meter_provider)
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Tasks that were spawned.")
        self._consumed = meter.create_counter("messaging.client.consumed.messages", "{message}", "Attempts that were begun.")
        self._operation = meter.create_histogram(
            "messaging.client.operation.duration", "s", "Of spawning and settling.", explicit_bucket_boundaries_advisory=BUCKETS
        )
        self._process = meter.create_histogram(
            "messaging.process.duration", "s", "Of the functions.", explicit_bucket_boundaries_advisory=BUCKETS
        )

    @contextmanager
    def sending(self, tasks: Sequence[T]) -> Iterator[list[T]]:
        """Around a spawn: the tasks with the span's context in their headers, unless they have one of their own."""
        queues = list(dict.fromkeys(task.queue for task in tasks))
        attributes = _attributes("send", queues[0] if len(queues) == 1 else "")
        more = {"messaging.batch.message_count": len(tasks)} if len(tasks) > 1 else {"lockbeat.task.name": tasks[0].name}
        began = time.perf_counter()
        with self._tracer.start_as_current_span(
            _name("send", queues), kind=self._trace.SpanKind.PRODUCER, attributes=attributes | more
        ) as span:
            carrier: dict[str, str] = {}
            self._propagate.inject(carrier)
            try:
                yield [replace(task, headers={**carrier, **(task.headers or {})}) for task in tasks]  # type: ignore[type-var]
            except BaseException as problem:
                attributes = attributes | {"error.type": type(problem).__name__}
                span.set_attribute("error.type", type(problem).__name__)
                raise
            finally:
                self._operation.record(time.perf_counter() - began, attributes)
                self._sent.add(len(tasks), attributes)

    def processing(self, task: Claimed) -> Run:
        """A function is about to run."""
        attributes = _attributes("process", task.queue)
        self._consumed.add(1, attributes)
        more: dict[str, Any] = {
            "messaging.message.id": task.id,
            "messaging.client.id": task.owner,
            "lockbeat.task.name": task.name,
            "lockbeat.attempt": task.attempt,
            "lockbeat.fence": task.fence,
        }
        if task.job:
            slot = datetime.fromtimestamp(task.slot_ms / 1000, UTC).isoformat(timespec="milliseconds")
            more |= {"lockbeat.job": task.job, "lockbeat.slot": slot}
        carrier = {str(key): value for key, value in (task.headers or {}).items() if isinstance(value, str)}
        created = self._trace.get_current_span(self._propagate.extract(carrier, self._context.Context())).get_span_context()
        links = [self._trace.Link(created)] if created.is_valid else []
        span = self._tracer.start_span(
            f"process {task.queue}",
            context=self._context.Context(),
            kind=self._trace.SpanKind.CONSUMER,
            attributes=attributes | more,
            links=links,
        )
        token = self._context.attach(self._trace.set_span_in_context(span))

        def ended(took: float, failed: str | None) -> None:
            self._process.record(took, attributes | ({"error.type": failed} if failed else {}))

        return Run(self, task, span, lambda: self._context.detach(token), ended)

    def settling(self, task: Claimed, processed: Any) -> Callable[[], None]:
        """The store is about to be told how it ended. What is called returns when it has been."""
        attributes = _attributes("settle", task.queue)
        began = time.perf_counter()
        span = self._tracer.start_span(
            f"settle {task.queue}",
            context=self._trace.set_span_in_context(processed, self._context.Context()),
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes | {"messaging.message.id": task.id},
        )

        def settled() -> None:
            self._operation.record(time.perf_counter() - began, attributes)
            span.end()

        return settled


class Run:
    """The span of a function that runs."""

    def __init__(
        self, spans: Spans, task: Claimed, span: Any, detach: Callable[[], None], ended: Callable[[float, str | None], None]
    ) -> None:
        self._spans, self._task, self._span, self._detach, self._ended = spans, task, span, detach, ended
        self._began = time.perf_counter()
        self._settled: Callable[[], None] | None = None

    def ended(self, error_type: str | None, summary: str, problem: BaseException | None) -> None:
        """It has returned, or failed by an error of this type. Called in the context in which it was begun."""
        from opentelemetry.trace import StatusCode

        if error_type is not None:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(StatusCode.ERROR, summary)
            if problem is not None:
                self._span.record_exception(problem)
        self._span.end()
        self._ended(time.perf_counter() - self._began, error_type)
        self._detach()
        self._settled = self._spans.settling(self._task, self._span)

    def settled(self) -> None:
        """The store knows, or will not be told."""
        if self._settled is not None:
            self._settled()


def _attributes(operation: str, queue: str) -> dict[str, Any]:
    said = {"messaging.system": SYSTEM, "messaging.operation.name": operation, "messaging.operation.type": operation}
    return {**said, "messaging.destination.name": queue} if queue else said


def _name(operation: str, queues: Sequence[str]) -> str:
    return f"{operation} {queues[0]}" if len(queues) == 1 else operation
