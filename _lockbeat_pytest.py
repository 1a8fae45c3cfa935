"""The fixtures of lockbeat.testing, for pytest.

It stands beside the package, for pytest loads it in every run: importing `lockbeat` would cost those that use none of it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lockbeat import Beat, Lockbeat
    from lockbeat.testing import Rehearsal

MARK = "lockbeat(beat, at=): the program of lockbeat_beat, a Beat or 'MODULE:BEAT', and when its test begins"
NO_PLUGIN = "lockbeat's fixtures are for asynchronous tests: install pytest-asyncio, or mark the test with @pytest.mark.anyio"
BOTH = "pytest-asyncio in auto mode takes the fixtures of tests that anyio runs: set asyncio_mode = strict"
LOOP_SCOPES = ("function", "class", "module", "package", "session")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("lockbeat_beat", "the program of the fixture lockbeat_beat, as MODULE:BEAT; its default is an empty one")
    parser.addini("lockbeat_at", "when tests with lockbeat's fixtures begin, as 2027-01-31T09:00Z; their default is now")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARK)
    if config.pluginmanager.has_plugin("asyncio"):
        # Of its fixtures each belongs to one event loop: the test's own is taken when the test is known.
        import pytest_asyncio

        fixture: Any = pytest_asyncio.fixture
        made = ModuleType("lockbeat_asyncio")
        for scope in LOOP_SCOPES:
            setattr(made, _by_asyncio(scope), fixture(_new(), loop_scope=scope))
        config.pluginmanager.register(made, "lockbeat-asyncio")


@pytest.fixture
def lockbeat_rehearsal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    """A `lockbeat.testing.Rehearsal` of the program that the mark or the option `lockbeat_beat` names."""
    by_asyncio = request.config.pluginmanager.has_plugin("asyncio")
    if "anyio_backend" in request.fixturenames:
        if by_asyncio and "auto" in (request.config.getoption("asyncio_mode"), request.config.getini("asyncio_mode")):
            pytest.fail(BOTH, pytrace=False)
        backend = request.getfixturevalue("anyio_backend")
        if (backend if isinstance(backend, str) else backend[0]) != "asyncio":
            pytest.skip("lockbeat runs on asyncio")
        name = "_lockbeat_by_anyio"
    elif by_asyncio:
        mark = request.node.get_closest_marker("asyncio")
        scope = mark.kwargs.get("loop_scope") if mark is not None else None
        name = _by_asyncio(scope or request.config.getini("asyncio_default_test_loop_scope") or "function")
    else:
        pytest.fail(NO_PLUGIN, pytrace=False)
    rehearsal: Rehearsal = request.getfixturevalue(name)
    # What the program opens by itself without a URL is the test's store, too.
    monkeypatch.setenv("LOCKBEAT_URL", rehearsal.url)
    monkeypatch.setenv("LOCKBEAT_NAMESPACE", rehearsal.beat.namespace)
    return rehearsal


@pytest.fixture
def lockbeat_beat(lockbeat_rehearsal: Rehearsal) -> Beat:
    """The program, served over a store in memory as the test moves time: see `lockbeat.testing`."""
    return lockbeat_rehearsal.beat


@pytest.fixture
def lockbeat_client(lockbeat_rehearsal: Rehearsal) -> Lockbeat:
    """An open client of the test's store."""
    return lockbeat_rehearsal.client


def _by_asyncio(scope: str) -> str:
    return f"_lockbeat_by_asyncio_{scope}"


def _new() -> Callable[..., AsyncIterator[Rehearsal]]:
    """The fixture, to be made a fixture of."""

    async def rehearsed(request: pytest.FixtureRequest) -> AsyncIterator[Rehearsal]:
        from lockbeat.errors import InvalidArgument, InvalidType, MissingExtra
        from lockbeat.testing import rehearse

        beat, at = _asked(request)
        try:
            rehearsal = rehearse(beat, at=at)
        except (InvalidArgument, InvalidType) as problem:
            pytest.fail(f"lockbeat_{problem}", pytrace=False)
        except MissingExtra as problem:
            pytest.fail(str(problem), pytrace=False)
        try:
            async with rehearsal:
                yield rehearsal
        except MissingExtra as problem:
            pytest.fail(str(problem), pytrace=False)

    return rehearsed


_lockbeat_by_anyio = pytest.fixture(_new(), name="_lockbeat_by_anyio")


def _asked(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The program, and when it begins."""
    marks = [*request.node.iter_markers("lockbeat")]
    for name in (name for mark in marks for name in mark.kwargs if name != "at"):
        pytest.fail(f"the mark takes no {name}=. {MARK}", pytrace=False)
    beat: Any = next((mark.args[0] for mark in marks if mark.args), None) or request.config.getini("lockbeat_beat") or None
    at: Any = (
        next((mark.kwargs["at"] for mark in marks if "at" in mark.kwargs), None) or request.config.getini("lockbeat_at") or None
    )
    if isinstance(beat, str):
        name = beat.removesuffix("()")
        try:
            beat = pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as problem:
            pytest.fail(f"lockbeat_beat: {name!r} can't be loaded, as MODULE:BEAT: {problem}", pytrace=False)
        beat = beat() if callable(beat) else beat
    return beat, at
