"""The pytest plugin, in runs of pytest of its own: under pytest-asyncio, under anyio's plugin, and without what it needs."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

APP = """
from lockbeat import Beat

beat = Beat("redis://127.0.0.1:1")
ran = []

@beat.cron("0 9 * * *", overlap="skip")
async def report(run):
    ran.append(run.slot)
"""
TEST = """
import pytest
from lockbeat import Lockbeat
from lockbeat.testing import *

import app

MARK

@pytest.mark.lockbeat("app:beat", at="2027-01-01T00:00Z")
async def test_it(lockbeat_beat, lockbeat_client):
    assert lockbeat_beat is app.beat
    app.ran.clear()
    await travel(lockbeat_beat, to="2027-01-02T10:00Z")
    assert [slot.day for slot in app.ran] == [1, 2]
    assert (await lockbeat_client.jobs.get("report")).counts.fired == 2
    async with Lockbeat() as mine:
        assert (await mine.jobs.get("report")).counts.fired == 2

async def test_a_new_beat_each(lockbeat_beat, lockbeat_client):
    assert lockbeat_beat is not app.beat
    assert await lockbeat_client.jobs.list() == []
    lockbeat_beat.every(60, name="tick")(lambda: None)
    await travel(lockbeat_beat, by=60)
    assert [job.job.name for job in await lockbeat_client.jobs.list()] == ["tick"]
"""
WAYS = {
    "asyncio strict": ("pytestmark = pytest.mark.asyncio", ["-p", "no:anyio", "--asyncio-mode=strict"]),
    "asyncio auto": ("", ["--asyncio-mode=auto"]),
    "asyncio, one loop for the module": (
        "pytestmark = pytest.mark.asyncio(loop_scope='module')",
        ["--asyncio-mode=strict"],
    ),
    "asyncio, one loop for the session": (
        "pytestmark = pytest.mark.asyncio",
        ["-o", "asyncio_default_test_loop_scope=session"],
    ),
    "anyio": ("pytestmark = pytest.mark.anyio", ["-p", "no:asyncio"]),
    "anyio beside asyncio": ("pytestmark = pytest.mark.anyio", ["--asyncio-mode=strict"]),
    "anyio auto": ("", ["-o", "anyio_mode=auto", "-p", "no:asyncio"]),
}


def run(pytester: pytest.Pytester, *args: str, **files: str) -> pytest.RunResult:
    scope = "" if "no:asyncio" in args else "asyncio_default_fixture_loop_scope = function\n"
    pytester.makeini(f"[pytest]\nfilterwarnings = error\n{scope}{files.pop('ini', '')}")
    pytester.makepyfile(app=APP, **files)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", "--strict-markers", *args, timeout=120)


@pytest.mark.parametrize("way", WAYS)
def test_the_fixtures_work_under(way: str, pytester: pytest.Pytester) -> None:
    mark, args = WAYS[way]
    done = run(pytester, *args, test_it=TEST.replace("MARK", mark))
    done.assert_outcomes(passed=2, skipped=2 if "anyio" in way else 0)  # under trio


def test_the_options_name_the_program_and_the_beginning(pytester: pytest.Pytester) -> None:
    ini = "lockbeat_beat = app:beat\nlockbeat_at = 2027-01-01T08:00Z\npythonpath = .\n"
    test = """
        from lockbeat.testing import travel

        async def test_it(lockbeat_beat, lockbeat_rehearsal):
            assert lockbeat_rehearsal.now.year == 2027
            await travel(lockbeat_beat, by=3600)
            import app
            assert app.ran
    """
    run(pytester, "--asyncio-mode=auto", ini=ini, test_it=test).assert_outcomes(passed=1)
    wrong = run(pytester, "--asyncio-mode=auto", ini=ini.replace("app:beat", "app:none"), test_it=test)
    wrong.assert_outcomes(errors=1)
    wrong.stdout.fnmatch_lines(["*lockbeat_beat: 'app:none' can't be loaded, as MODULE:BEAT: *"])


def test_a_failed_assertion_says_what_the_ledger_says_of_that_slot(pytester: pytest.Pytester) -> None:
    test = """
        import pytest
        from lockbeat.testing import assert_fired, assert_skipped, takes, travel

        @pytest.mark.lockbeat("app:beat", at="2027-01-01T08:00Z")
        async def test_it(lockbeat_beat):
            takes("report", 86400 + 60)
            await travel(lockbeat_beat, to="2027-01-02T09:00Z")
            await assert_fired("report", "2027-01-02T09:00Z")

        @pytest.mark.lockbeat("app:beat", at="2027-01-01T08:00Z")
        async def test_another(lockbeat_beat):
            await travel(lockbeat_beat, by=3600)
            await assert_skipped("report", "2027-01-01T09:00Z", "overlap")
    """
    done = run(pytester, "--asyncio-mode=auto", test_it=test)
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(
        [
            "E *it was not fired. report at 2027-01-02T09:00:00+00:00: skipped. It was not fired. The slot of"
            " 2027-01-01T09:00:00+00:00 had not ended when it came due*",
            "E *it was not skipped. report at 2027-01-01T09:00:00+00:00: done. Attempt 1 of 1, by instance-1, *",
        ]
    )


def test_a_job_that_fails_fails_no_test_by_itself_and_its_error_is_told(pytester: pytest.Pytester) -> None:
    test = """
        from lockbeat.testing import assert_fired, travel

        async def test_it(lockbeat_beat):
            @lockbeat_beat.every(60)
            def broken():
                raise ValueError("no such customer")

            await travel(lockbeat_beat, by=60)
            [slot] = [entry.slot for entry in await lockbeat_beat.jobs.ledger("broken")]
            await assert_fired(broken, slot, state="done")
    """
    done = run(pytester, "--asyncio-mode=auto", test_it=test)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["E *it was fired, and is 'failed', not 'done'. *ValueError: no such customer*"])


@pytest.mark.parametrize("package", ["fakeredis", "time_machine", "lupa"])
def test_what_is_missing_is_one_line_that_names_the_extra(package: str, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(f"import sys\nsys.modules[{package!r}] = None")
    done = run(pytester, "--asyncio-mode=auto", test_it="async def test_it(lockbeat_client): ...\ndef test_other(): ...")
    done.assert_outcomes(errors=1, passed=1)
    done.stdout.fnmatch_lines(["lockbeat.testing *: pip install 'lockbeat[[]testing]'"])
    assert "Traceback" not in done.stdout.str()


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("'app:ran'", "lockbeat_beat: must be a lockbeat.Beat, not builtins.list"),
        ("'app:blocking'", "lockbeat_beat: must be a lockbeat.Beat, not lockbeat.sync.beat.Beat: give its `within`"),
        ("at='noon'", "lockbeat_at: *noon*"),
        ("'app:beat', start='2027-01-01T00:00Z'", "the mark takes no start=. lockbeat(beat, at=): *"),
        ("'app:none'", "lockbeat_beat: 'app:none' can't be loaded*"),
    ],
)
def test_a_mark_that_can_not_be_used_is_one_line(mark: str, says: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(app=APP + "from lockbeat import sync\nblocking = sync.Beat()")
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.asyncio\n@pytest.mark.lockbeat({mark})\nasync def test_it(lockbeat_beat): pass"
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["* ERROR at setup of test_it *", says])
    assert "Error" not in result.stdout.str().partition("ERROR at setup")[2].partition("short test summary")[0]


def test_without_a_plugin_for_asynchronous_tests_it_says_which(pytester: pytest.Pytester) -> None:
    done = run(pytester, "-p", "no:asyncio", test_it="def test_it(lockbeat_client): ...")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["lockbeat's fixtures are for asynchronous tests: install pytest-asyncio, or *"])


def test_a_run_that_uses_none_of_it_imports_none_of_it(pytester: pytest.Pytester) -> None:
    test = """
        import sys

        def test_it(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("lockbeat")
            assert not [name for name in sys.modules if name.partition(".")[0] in ("lockbeat", "fakeredis", "redis")]
    """
    run(pytester, "-p", "no:asyncio", "-p", "no:anyio", test_it=test).assert_outcomes(passed=1)


def test_anyio_beside_asyncio_in_auto_mode_is_refused(pytester: pytest.Pytester) -> None:
    test = "import pytest\n@pytest.mark.anyio\nasync def test_it(lockbeat_client): ..."
    done = run(pytester, "--asyncio-mode=auto", test_it=test)
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(["pytest-asyncio in auto mode takes the fixtures of tests that anyio runs: *strict"])


def test_trio_is_passed_over(pytester: pytest.Pytester) -> None:
    test = """
        import pytest

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return request.param

        @pytest.mark.anyio
        async def test_it(lockbeat_client): ...
    """
    run(pytester, "-p", "no:asyncio", test_it=test).assert_outcomes(passed=1, skipped=1)
