"""What somebody in the second week tries, and what is said to it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lockbeat import Lockbeat as Client
from lockbeat.jobs import Job
from lockbeat.triggers import At, Every

from .conftest import Lockbeat, using


def test_a_pause_may_last_so_long_from_now_and_who_resumes_says_why(lockbeat: Lockbeat, store: str) -> None:
    using(store, lambda lb: lb.jobs.put(Job.declare("report", Every(3600)), Job.declare("other", Every(3600))))
    [paused] = lockbeat("pause", "report", "--until", "10m", "--json", "--url", store).json
    until = datetime.fromisoformat(paused["until_at"])
    assert 300 < (until - datetime.now(UTC)).total_seconds() <= 600
    assert lockbeat("resume", "report", "--reason", "mended", "--by", "anna", "--url", store).code == 0
    change, *_ = lockbeat("changes", "report", "--json", "--url", store).json
    assert (change["what"], change["by"], change["reason"]) == ("resume", "anna", "mended")
    lockbeat("pause", "report", "--until", "soon", "--url", store).refuses(2, "'soon' is no time")
    assert [job["job"] for job in lockbeat("ls", "other", "--json", "--url", store).json] == ["other"]
    lockbeat("ls", "nobody", "--url", store).refuses(1, "no job named 'nobody'")
    lockbeat("ls", "other", "--tag", "eu", "--url", store).refuses(2, "say names of jobs, or --tag")


def test_why_of_a_job_tells_of_the_run_that_was_triggered_since(lockbeat: Lockbeat, store: str) -> None:
    using(store, lambda lb: lb.jobs.put(Job.declare("report", Every(3600))))
    assert "has not come due" in lockbeat("why", "report", "--url", store).out
    run = lockbeat("trigger", "report", "--json", "--url", store).json["task_id"]
    assert lockbeat("why", "report", "--url", store).out.startswith(f"{run}, triggered at ")


def test_who_wants_a_job_of_another_origin_is_told_what_to_do(lockbeat: Lockbeat, store: str, tmp_path: Path) -> None:
    async def declare(lb: Client) -> None:
        await lb.jobs.declare([Job.declare("report", Every(3600))])
        await lb.jobs.put(Job.declare("once", At(datetime(2040, 1, 31, 12, tzinfo=UTC))))

    using(store, declare)
    file = tmp_path / "jobs.json"
    file.write_text('[{"name": "report", "every": 60}]')
    apply = ("apply", str(file), "--origin", "billing", "--url", store)
    assert "give it another name; or --take-over" in lockbeat(*apply).err
    assert lockbeat(*apply, "--take-over").code == 0
    assert "at 2040-01-31 12:00:00Z" in lockbeat("ls", "once", "--utc", "--url", store).out
