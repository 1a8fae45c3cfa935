"""Lines of JSON, the run that a record belongs to, and links to logs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lockbeat import Beat, Lockbeat
from lockbeat.errors import InvalidArgument
from lockbeat.logs import MOST, JsonFormatter, RunFilter, TextFormatter, running
from lockbeat.process.logs import log
from lockbeat.values.links import check_link, link
from tests.beats import fired
from tests.conftest import only, wait_until


@dataclass
class Ran:
    id: str = "report@1000"
    job: str = "report"
    slot_ms: int = 1000
    attempt: int = 2
    fence: int = 7


@pytest.fixture
def written() -> Iterator[Callable[[logging.Formatter], io.StringIO]]:
    """A logger of the program's own that writes with such a formatter."""
    log = logging.getLogger("app.orders")
    log.propagate = False

    def to(formatter: logging.Formatter) -> io.StringIO:
        out = io.StringIO()
        handler = logging.StreamHandler(out)
        handler.setFormatter(formatter)
        handler.addFilter(RunFilter())
        log.addHandler(handler)
        return out

    yield to
    log.handlers.clear()
    log.propagate = True


def test_a_record_is_one_line_of_json(written: Callable[[logging.Formatter], io.StringIO]) -> None:
    out, log = written(JsonFormatter()), logging.getLogger("app.orders")
    log.warning("two\nlines %s", "é", extra={"tenant": "x", "odd": object})
    try:
        raise ValueError("no luck")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["message"] == "two\nlines é"
    assert (first["level"], first["logger"], first["tenant"]) == ("WARNING", "app.orders", "x")
    assert first.keys().isdisjoint({"task_id", "args", "msg", "exc_info", "levelno", "taskName"} - {"taskName"})
    assert first["at"].endswith("+00:00")
    assert second["exception"].endswith("ValueError: no luck")


def _in_itself() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    return loop


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(float("nan"), id="nan"),
        pytest.param({"load": [float("inf")]}, id="inf"),
        pytest.param(10**5000, id="long number"),
        pytest.param(_in_itself(), id="in itself"),
        pytest.param(_deep(), id="deep"),
        pytest.param("x" * 1_000_000, id="long text"),
        pytest.param(["x" * 70_000] * 20, id="long texts"),
    ],
)
def test_whatever_is_given_as_extra_it_is_one_line_that_any_reader_of_json_takes(
    written: Callable[[logging.Formatter], io.StringIO], value: object
) -> None:
    out, log = written(JsonFormatter()), logging.getLogger("app.orders")

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    log.warning("said", extra={"odd": value, "tenant": "x"})
    [line] = [json.loads(line, parse_constant=refuse) for line in out.getvalue().splitlines()]
    assert (line["message"], line["tenant"]) == ("said", "x")
    assert line["odd"]
    assert len(out.getvalue()) < 2 * MOST


@pytest.mark.parametrize("within", [True, False])
def test_extra_of_the_names_that_a_run_has_is_the_records_own(
    written: Callable[[logging.Formatter], io.StringIO], within: bool
) -> None:
    out, log = written(JsonFormatter()), logging.getLogger("app.orders")
    token = running.set(Ran() if within else None)
    log.warning("try again", extra={"attempt": 17, "job": "of a printer"})
    running.reset(token)
    line = json.loads(out.getvalue())
    assert (line["attempt"], line["job"]) == (17, "of a printer")
    assert ("fence" in line) == within


def test_extra_that_has_the_name_of_a_field_is_not_lost(written: Callable[[logging.Formatter], io.StringIO]) -> None:
    out, log = written(JsonFormatter()), logging.getLogger("app.orders")
    try:
        raise ValueError("no luck")
    except ValueError:
        log.exception("said", extra={"level": "gold", "logger": "x", "at": "noon", "exception": "of theirs"})
    line = json.loads(out.getvalue())
    assert (line["level"], line["logger"]) == ("ERROR", "app.orders")
    assert line["exception"].endswith("ValueError: no luck")
    assert (line["level_"], line["logger_"], line["at_"], line["exception_"]) == ("gold", "x", "noon", "of theirs")


def test_within_a_run_each_record_says_which(written: Callable[[logging.Formatter], io.StringIO]) -> None:
    out, text, log = written(JsonFormatter()), written(TextFormatter("%(message)s")), logging.getLogger("app.orders")
    token = running.set(Ran())
    try:
        log.warning("within")
        log.warning("report@1000: says so itself")
        log.warning("of another", extra={"task_id": "mine"})
    finally:
        running.reset(token)
    log.warning("without")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    fields = {"task_id": "report@1000", "job": "report", "slot": "1970-01-01T00:00:01.000+00:00", "attempt": 2, "fence": 7}
    assert lines[0].items() >= fields.items()
    assert lines[2]["task_id"] == "mine"
    assert "task_id" not in lines[3]
    assert text.getvalue().splitlines() == [
        "within [report@1000 attempt 2 fence 7]",
        "report@1000: says so itself",
        "of another [mine attempt None fence None]",
        "without",
    ]


@pytest.mark.parametrize("words", ["INSERT\n", "\x1b[31m"], ids=["lines", "escapes"])
def test_an_error_of_any_length_is_some_kilobytes_of_log(caplog: Any, words: str) -> None:
    """A line was made safe character by character: 50 MB of SQL held the event loop for a minute, and all leases were lost."""
    try:
        raise ValueError(words * 30_000 + "failed")
    except ValueError as error:
        log.warning("it failed: %s", error, exc_info=error)
    [record] = caplog.records
    assert record.exc_text.startswith("Traceback")
    assert record.exc_text.endswith("failed")
    assert max(len(record.exc_text), len(record.getMessage())) < 3 * MOST


@only("memory")
async def test_what_a_function_and_its_threads_log_has_its_run(lb: Lockbeat, written: Any) -> None:
    out, log = written(JsonFormatter()), logging.getLogger("app.orders")
    beat = Beat(lb)

    @beat.task(name="awaits")
    async def awaits() -> None:
        log.warning("loop")
        await asyncio.to_thread(log.warning, "its thread")
        await asyncio.create_task(_later(log))

    @beat.task(name="plain")
    def plain() -> None:
        log.warning("thread")

    async with beat.lifespan():
        ids = [(await lb.tasks.spawn(name)).task_id for name in ("awaits", "plain")]
        await wait_until(lambda: len(out.getvalue().splitlines()) == 4, "all are logged")
        log.warning("outside")
    lines = {line["message"]: line.get("task_id") for line in map(json.loads, out.getvalue().splitlines())}
    assert lines == {"loop": ids[0], "its thread": ids[0], "its task": ids[0], "thread": ids[1], "outside": None}


async def _later(log: logging.Logger) -> None:
    log.warning("its task")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("https://logs/{task}", "names {task}"),
        ("https://logs/{task_id!r}", "names {task_id}"),
        ("https://logs/{task_id:>9}", "names {task_id}"),
        ("https://{owner}/", "must be a URL that begins with https://HOST"),
        ("javascript:alert({task_id})", "must be a URL that begins with https://HOST"),
        ("https://logs/{", "can't be read"),
    ],
)
def test_a_template_that_can_not_be_one_is_named(template: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as problem:
        check_link("log_url", template)
    assert str(problem.value).startswith(f"log_url: {said}")
    with pytest.raises(InvalidArgument):
        Lockbeat("memory://", log_url=template)


def test_what_is_named_is_quoted() -> None:
    url = link("https://logs/?q={task_id}&from={started_ms}&to={ended_ms}", task_id="a b&c@1/#", started_ms=5)
    assert url == "https://logs/?q=a%20b%26c%401%2F%23&from=5&to="


@only("memory", "valkey")
async def test_why_has_the_link_of_the_latest_attempt(connect: Any, raw: Any, lb: Lockbeat) -> None:
    task = await fired(lb, raw)
    async with connect(log_url="https://logs/?q={task_id}&fence={fence}&at={slot_ms}") as other:
        told = await other.jobs.why("report")
        assert told.log_url == f"https://logs/?q=report%40{task.slot_ms}&fence={task.fence}&at={task.slot_ms}"
    assert (await lb.jobs.why("report")).log_url is None


def test_nothing_needs_the_extras() -> None:
    """(redis-py loads OpenTelemetry's API by itself, where it is there.)"""
    import subprocess

    code = "import sys, lockbeat, lockbeat.logs, lockbeat.events, lockbeat.alarms, lockbeat.otel\n"
    code += "print([name for name in ('httpx', 'lockbeat.metrics') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
