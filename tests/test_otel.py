"""Traces and metrics: what is spawned in a web request is linked to what another process runs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from lockbeat import Beat, Lockbeat, sync
from lockbeat.otel import instrument, uninstrument
from tests.conftest import Connect, only, wait_until

ROOT = Path(__file__).parents[1]
WORKER = """
import asyncio, json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from lockbeat import Beat
from lockbeat.otel import instrument

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
beat = Beat(sys.argv[1], namespace=sys.argv[2])
instrument(beat, tracer_provider=provider)
ended = asyncio.Event()

@beat.task
async def order(run):
    with provider.get_tracer("app").start_as_current_span("charge"):
        pass

async def main():
    async with beat.lifespan(schedule=False):
        while not any(span.name.startswith("settle") for span in exporter.get_finished_spans()):
            await asyncio.sleep(0.01)
    print(json.dumps([json.loads(span.to_json()) for span in exporter.get_finished_spans()]))

asyncio.run(main())
"""


def context(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


class Telemetry:
    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracer_provider, self.meter_provider = TracerProvider(), MeterProvider([self.reader])
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def instrument(self, *clients: Any) -> None:
        instrument(*clients, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    def spans(self, begins: str = "") -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(begins)]

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        metrics = [metric for of in data.resource_metrics for scope in of.scope_metrics for metric in scope.metrics]
        return {metric.name: [*metric.data.data_points] for metric in metrics}


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@only("valkey")
async def test_a_request_s_spawn_and_the_run_in_another_process_are_one_linked_trace(
    lb: Lockbeat, url: str, namespace: str, telemetry: Telemetry, tmp_path: Path
) -> None:
    telemetry.instrument(lb)
    tracer = telemetry.tracer_provider.get_tracer("web")
    with tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER) as request:
        spawned = await lb.tasks.spawn("order", {"id": 7})
    [send] = telemetry.spans("send default")
    assert send.parent is not None
    assert send.parent.span_id == request.get_span_context().span_id
    assert send.kind is SpanKind.PRODUCER
    (tmp_path / "worker.py").write_text(WORKER)
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(tmp_path / "worker.py"), url, namespace],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    spans = {span["name"]: span for span in json.loads(ran.stdout)}
    assert spans.keys() == {"process default", "settle default", "charge"}
    process, settle, charge = spans["process default"], spans["settle default"], spans["charge"]
    assert process["parent_id"] is None, "links rather than parents"
    [link] = process["links"]
    assert int(link["context"]["trace_id"], 16) == context(send).trace_id == request.get_span_context().trace_id
    assert int(link["context"]["span_id"], 16) == context(send).span_id
    assert process["kind"] == "SpanKind.CONSUMER"
    assert settle["kind"] == "SpanKind.CLIENT"
    assert settle["parent_id"] == charge["parent_id"] == process["context"]["span_id"]
    said = process["attributes"]
    assert (
        said.items()
        >= {
            "messaging.system": "lockbeat",
            "messaging.destination.name": "default",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": spawned.task_id,
            "lockbeat.task.name": "order",
            "lockbeat.attempt": 1,
        }.items()
    )


@only("memory", "valkey")
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_failure_is_in_its_span_and_each_attempt_is_linked(
    lb: Lockbeat, connect: Connect, telemetry: Telemetry, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    beat = Beat(lb)
    telemetry.instrument(beat)
    inside: list[int] = []

    def plain() -> None:
        inside.append(trace.get_current_span().get_span_context().span_id)
        raise ValueError("no luck")

    async def awaits() -> None:
        plain()

    beat.task(name="mail")(plain if kind == "plain" else awaits)
    with telemetry.tracer_provider.get_tracer("web").start_as_current_span("request"):
        await lb.tasks.spawn("mail", max_attempts=2, retry=None, headers={"tenant": "x"})
    async with beat.lifespan():
        await wait_until(lambda: len(telemetry.spans("settle")) == 2, "two attempts")
    [send] = telemetry.spans("send")
    runs = telemetry.spans("process")
    assert [context(span).span_id for span in runs] == inside, "the function runs within"
    for span in runs:
        assert [link.context.span_id for link in span.links] == [context(send).span_id]
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == "ValueError"
        assert [event.name for event in span.events] == ["exception"]
    points = telemetry.points()
    assert sum(point.value for point in points["messaging.client.sent.messages"]) == 1
    assert sum(point.value for point in points["messaging.client.consumed.messages"]) == 2
    assert sum(point.count for point in points["messaging.process.duration"]) == 2
    assert {
        point.attributes["messaging.operation.name"]: point.count for point in points["messaging.client.operation.duration"]
    } == {
        "send": 1,
        "settle": 2,
    }
    assert points["messaging.process.duration"][0].explicit_bounds[0] == 0.005
    assert "Failed to detach" not in caplog.text
    uninstrument(beat)
    await lb.tasks.spawn("mail")
    assert len(telemetry.spans("send")) == 1


@only("memory")
async def test_a_slot_has_a_span_of_its_own_without_a_link(lb: Lockbeat, telemetry: Telemetry) -> None:
    beat = Beat(lb)
    telemetry.instrument(beat)

    @beat.every(1)
    async def report() -> None: ...

    async with beat.lifespan():
        await wait_until(lambda: telemetry.spans("settle"), "it ran")
    span = telemetry.spans("process")[0]
    assert span.parent is None
    assert not span.links
    assert span.attributes is not None
    assert span.attributes["lockbeat.job"] == "report"
    assert str(span.attributes["messaging.message.id"]).startswith("report@")


@only("valkey")
def test_the_context_of_a_thread_that_blocks_goes_along(url: str, namespace: str, telemetry: Telemetry) -> None:
    with sync.Lockbeat(url, namespace=namespace) as lb:
        telemetry.instrument(lb)
        with telemetry.tracer_provider.get_tracer("web").start_as_current_span("request") as request:
            spawned = lb.tasks.spawn("order", headers={"traceparent": "mine"})
        [send] = telemetry.spans("send")
        assert send.parent is not None
        assert send.parent.span_id == request.get_span_context().span_id
        assert lb.tasks.get(spawned.task_id).headers["traceparent"] == "mine", "who says one keeps it"
        lb.tasks.cancel(spawned.task_id)
