"""What RESULTS.md says of each suite: a chapter a suite, from its result alone."""

from __future__ import annotations

from typing import Any

import pages
from tables import cell, emphasised, number, table


def problems(result: dict[str, Any]) -> list[str]:
    return [f"{name} ended: `{text[-200:]}`" for name, text in result["problems"].items()]


def locks(result: dict[str, Any]) -> str:
    called = {
        "pings": "two PINGs, redis-py",
        "raw": "SET NX PX + scripted release",
        "redis-py": "redis-py Lock",
        "pottery": "pottery AIORedlock, one master",
        "lockbeat pings": "two PINGs, lockbeat's wire",
        "lockbeat locks": "**lockbeat** `locks.try_acquire/release`",
        "lockbeat handle": "**lockbeat** `async with lb.lock()`",
    }
    speed, ratios = result["pairs_per_second"], result["ratios"]
    *alone, crowd = (kind for kind in ratios if kind != "times redis-py's Lock, 1 caller")
    rows = [
        (called[name], row["1"], *(ratios[kind][name] for kind in alone), row["64"], ratios[crowd][name])
        for name, row in speed.items()
    ]
    head = ("lock", "pairs/s, 1 caller", *alone, "pairs/s, 64 callers on 64 keys", crowd)
    return "asyncio, ttl 10 s, a new key for each caller.\n\n" + table(head, rows)


def blocking(result: dict[str, Any]) -> str:
    called = {
        "pings": "two PINGs, redis-py",
        "redis-py": "redis-py Lock",
        "pottery": "pottery Redlock, one master",
        "anyio's portal": "lockbeat's asynchronous `locks` through anyio's portal",
        "lockbeat locks": "**lockbeat.sync** `locks.try_acquire/release`",
        "lockbeat handle": "**lockbeat.sync** `with lb.lock()`",
    }
    alone, crowd = result["ratios"]
    rows = [
        (called[name], row["1"], result["ratios"][alone][name], row["16"], result["ratios"][crowd][name])
        for name, row in result["pairs_per_second"].items()
    ]
    return "ttl 10 s, a key for each thread.\n\n" + table(
        ("lock", "pairs/s, 1 thread", alone, "pairs/s, 16 threads", crowd), rows
    )


def waiting(result: dict[str, Any]) -> str:
    head = (
        "lock",
        "hand-off p50 ms",
        "p99 ms",
        "max ms",
        f"{result['waiters']} waiters through one key, s",
        f"inversions of {result['pairs_of_waiters']:,}",
        f"commands/s while {result['waiters']} wait",
        "first waiter killed: ms to the second",
        "first waiter frozen (SIGSTOP)",
    )
    keys = ["handoff_p50_ms", "handoff_p99_ms", "handoff_max_ms"]
    keys += ["crowd_seconds", "crowd_inversions", "crowd_commands_per_second", "killed_waiter_ms"]
    names = {"redis-py": "redis-py Lock", "pottery": "pottery AIORedlock", "lockbeat handle": "**lockbeat** `lb.lock()`"}
    rows = [(names[name], *(row[key] for key in keys), row.get("frozen_waiter_ms")) for name, row in result["rows"].items()]
    return (
        "Hand-off: two processes hold one lock in turn; from the call that releases to the return of the other's acquire, "
        f"{result['rows']['lockbeat handle']['handoffs']} times. redis-py and pottery poll, so a killed waiter of theirs is "
        "nobody's predecessor: their figure is what polling costs. A frozen process can't be told from a slow one; the lock "
        "it was granted goes to the next when that grant ends.\n\n" + table(head, rows)
    )


def renew(result: dict[str, Any]) -> str:
    names = {"redis-py": "redis-py `Lock.extend`, 64 callers", "lockbeat": "**lockbeat** keeper"}
    rows = [
        (names[name], row["round_ms"], row["calls_a_round"], f"{row['lost']} / {result['leases'] - row['alive']}")
        for name, row in result["rows"].items()
    ]
    head = ("who", f"ms to renew {result['leases']:,}", "script calls a round", "leases found lost / missing in the end")
    return table(head, rows)


def fire(result: dict[str, Any]) -> str:
    sizes = list(result["rows"]["lockbeat"])
    keys = {
        "round_trips_per_fire": "round trips a fire",
        "executed_per_fire": "commands a fire, those in scripts included",
        "server_us_per_fire": "server CPU a fire, µs",
        "instance_us_per_fire": "instance CPU a fire, µs",
    }
    most = sizes[-1]
    rows = []
    for name, by in result["rows"].items():
        what = "sends" if "RedBeat" in name or "enqueue" in name else "runs the function"
        rates = [by.get(size, {}).get("fires_per_second") for size in sizes]
        rows.append((emphasised(name), what, *rates, *(by.get(most, {}).get(key) for key in keys)))
    head = ["scheduler", "a fire", *(f"fires/s, {int(size):,} due" for size in sizes)]
    head += [f"{text} ({int(most):,})" for text in keys.values()]
    notes = [
        f"N jobs, each due every second, one instance, {result['seconds']:g} s after a warm-up; fewer fires/s than jobs: slots "
        "were late, dropped or skipped. RedBeat only sends: compare it with the row that enqueues. lockbeat's other row also "
        "claims, runs and ends each task, under a lease and a lock. APScheduler without misfires gathers the slots of a job that "
        "it is late for and runs them together, ever later. Round trips: requests as the server read them from sockets."
    ]
    return "\n\n".join([*notes, table(head, rows), *problems(result)])


def lateness(result: dict[str, Any]) -> str:
    rows = [
        (emphasised(name), *(row[key] for key in ("p50_ms", "p99_ms", "max_ms")), f"{row['fired_of_due']:.1%}")
        for name, row in result["rows"].items()
    ]
    head = ("scheduler", "p50 ms", "p99 ms", "max ms", "fired of what was due")
    note = (
        f"{result['jobs']:,} jobs due in the same instant, every 3 s, {result['bursts']} bursts a round; from the slot to the "
        "start of the function, for RedBeat to the end of its sending. RedBeat runs its `rrule` here, as its intervals drift "
        "off any common instant."
    )
    return "\n\n".join([note, table(head, rows), *problems(result)])


def idle(result: dict[str, Any]) -> str:
    rows = [
        (
            emphasised(label),
            row["commands_per_second"],
            ", ".join(f"{count} {name}" for name, count in row["commands"].items()) or "nothing",
            row["instance_cpu_ms_per_second"],
        )
        for label, row in result["rows"].items()
    ]
    head = ("instance", "commands/s", f"what it sent in {result['watched_s']:.0f} s", "instance CPU, ms/s")
    note = (
        "RedBeat by its defaults and APScheduler are silent because they look for nothing: a second RedBeat waits until the lock "
        "of a dead one ends, after 25 minutes, and a second APScheduler fires everything twice."
    )
    return f"{table(head, rows)}\n\n{note}"


def control(result: dict[str, Any]) -> str:
    rows = [
        (f"`{verb}`", *(row[of] for of in ("call_ms", "p50_ms", "p99_ms", "max_ms", "missed")))
        for verb, row in result["rows"].items()
    ]
    seen = f"ms until the last of {result['instances']} has asked"
    head = ("verb", "call, ms", f"{seen}, p50", "p99", "max", "not heard")
    note = (
        f"From the call until the last of {result['instances']} idle instances, each a process with {result['jobs']} jobs, has "
        f"asked the store what is to be done now (MONITOR); each verb {result['rounds']} times. No slot is fired in a pause from "
        "its script on, whoever has heard of it."
    )
    return f"{note}\n\n{table(head, rows)}"


def registry(result: dict[str, Any]) -> str:
    rows = [
        (
            emphasised(name),
            f"{int(size):,}",
            row["declare_s"],
            row["start_s"],
            row["again_s"],
            row["bytes_per_job"],
        )
        for name, by in result["starts"].items()
        for size, row in by.items()
    ]
    head = ("scheduler", "jobs", "declare in Python, s", "first start, s", "start again, s", "bytes a job in the store")
    starts = table(head, rows)
    ticks = table(
        ("others that are not due", "fires/s", "server CPU a fire, µs", "instance CPU a fire, µs"),
        [
            (f"{int(size):,}", row["fires_per_second"], row["server_us_per_fire"], row["instance_us_per_fire"])
            for size, row in result["ticks"].items()
        ],
    )
    return f"{starts}\n\nlockbeat with {result['due']:,} jobs due every second, among others:\n\n{ticks}"


def scale(result: dict[str, Any]) -> str:
    code, made, jobs = result["declared"], result["made"], result["jobs"]
    head = ("jobs", "declare in Python, s", "first start or put, s", "again, s", "bytes a job in the store", "in the process")
    sizes = table(
        head,
        [
            ("in code", code["declare_s"], code["start_s"], code["again_s"], code["store_bytes"], code["process_bytes"]),
            ("made at run time", "", made["put_s"], made["put_again_s"], made["store_bytes"], made["process_bytes"]),
        ],
    )
    among, alone = number(code["fire_us_among"]), number(code["fire_us_alone"])
    idle = (
        f"Idle among {jobs:,} jobs: {number(code['commands_per_second'])} commands a second. With {result['due']:,} due every "
        f"second, a slot costs the server {among} µs among them, {alone} alone."
    )
    sets = ""
    if "applied" in made:  # results of before have none
        sets = "\n\n" + table(
            (f"`lb.jobs.apply` of {jobs:,}", "s"), [(what, seconds) for what, seconds in made["applied"].items()]
        )
        sets += (
            f"\n\n`lockbeat plan` of {jobs:,} jobs: {number(code['plan_s'])} s where nothing has changed, "
            f"{number(code['plan_changed_s'])} s where all have."
        )
    pages = table(
        (f"`lb.jobs.list(limit={result['page']})` among {jobs:,}", "ms, median", "ms, p90"),
        [(what, row["median"], row["p90"]) for what, row in made["pages"].items()],
    )
    due = f"{result['due']:,} due every second"
    beside = table(
        (due, "instances beside", "server CPU", "over that alone", "fires/s", "fired by others", "scripts/s"),
        [
            (
                how,
                others,
                row["server_cpu"],
                row["server_cpu"] / by["0"]["server_cpu"],
                row["ran_per_second"],
                f"{row['by_others']:.0%}",
                row["scripts_per_second"],
            )
            for how, by in result["shared"].items()
            for others, row in by.items()
        ],
    )
    return "\n\n".join([sizes + sets, idle, pages, beside])


def sizing(result: dict[str, Any]) -> str:
    found = {"sizing": result}
    memory = f"An instance with {result['jobs']} jobs that waits for the next: {number(result['instance_bytes'] / 1e6)} MB."
    return "\n\n".join([pages.sizes(found), pages.links(found), memory])


def tasks(result: dict[str, Any]) -> str:
    rows, commands, latency, idle = (result[part] for part in ("rows", "commands", "latency", "idle"))
    sizes = list(dict.fromkeys(size for row in rows.values() for size in row["run"]))
    at = str(result["commands_at"])
    apart = " and ".join(f"{name} {versions[name]} (redis-py {versions['redis']})" for name, versions in result["apart"].items())
    note = (
        "Tasks that do nothing, one worker process. They are spawned before it starts: one after the other, then many at once, "
        f"by the queue's own call for that or by {result['callers']} callers. tasks/s: from the start of the first function to "
        "that of the last. Peers by their defaults but for the concurrency; where a row says otherwise, by settings that their "
        "documentation, tests or benchmarks have for speed. All on asyncio's own loop, with hiredis where they use redis-py, "
        f"without logging. {apart} have environments of their own, as they don't take the redis-py that the others want. docket "
        "is given the connections that its documentation asks for."
    )
    speed = table(
        ("queue", "kept of a task", *(f"tasks/s, concurrency {size}" for size in sizes), "spawns/s, one by one", "many at once"),
        [
            (
                emphasised(name),
                row["keeps"],
                *(row["run"].get(size, {}).get("tasks_per_second") for size in sizes),
                row["spawns_per_second"],
                row["spawns_per_second_many"],
            )
            for name, row in rows.items()
        ],
    )
    counted = (
        f"Commands by MONITOR, concurrency {at}; what the worker sends at its start and in pauses is included. Round trips: "
        "requests as the server read them from sockets."
    )
    cost = table(
        (
            "queue",
            "sent to spawn one",
            "sent to run it",
            "more inside scripts",
            *(f"round trips to run it, concurrency {size}" for size in sizes),
            f"server CPU to run it, µs ({at})",
            f"worker CPU, µs ({at})",
        ),
        [
            (
                emphasised(name),
                commands[name]["spawn"]["sent"],
                commands[name]["run"]["sent"],
                commands[name]["spawn"]["inside"] + commands[name]["run"]["inside"],
                *(row["run"].get(size, {}).get("round_trips") for size in sizes),
                row["run"].get(at, {}).get("server_us"),
                row["run"].get(at, {}).get("worker_us"),
            )
            for name, row in rows.items()
            if name in commands
        ],
    )
    paced = (
        "From the call that spawns to the start of the function in another process, whose worker is idle: one task at a time, "
        f"after pauses of different lengths. Idle: commands sent, by MONITOR, in {result['watched_s']:.0f} s. Both at each "
        "queue's default concurrency. redis-py 8 gives up a read after 5 s unless told otherwise: taskiq's list, which waits for "
        "longer, connects anew each time."
    )
    head = ["queue", "spawn to start, p50 ms", "p99 ms", "max ms", "samples", "idle commands/s", "most of them"]
    waits = table(
        [*head, "idle worker CPU, ms/s"],
        [
            (
                emphasised(name),
                *(latency.get(name, {}).get(key) for key in ("p50_ms", "p99_ms", "max_ms")),
                str(latency.get(name, {}).get("samples", "")),
                idle.get(name, {}).get("commands_per_second"),
                ", ".join(sorted(sent := idle.get(name, {}).get("commands", {}), key=lambda word: -sent[word])[:3]) or "nothing",
                idle.get(name, {}).get("worker_cpu_ms_per_second"),
            )
            for name in rows
        ],
    )
    return "\n\n".join([note, speed, counted, cost, paced, waits, *problems(result)])


def celery(result: dict[str, Any]) -> str:
    rows = result["rows"]
    kills, away = result["kill_every_s"], result["broker_away_s"]
    note = (
        f"{result['entries']} entries of one second for {result['seconds']:g} s; every {kills} s one of the beats is killed by "
        f"kill -9 and started again; the broker is away for {away} s half-way. A real worker, a Valkey as the broker, another "
        "for what beats keep. Messages are counted by when they were sent."
    )
    head = ("scheduler", "beats", "slots due", "messages run", "too many", "longest silence of an entry, s")
    counted = table(
        head,
        [
            (emphasised(name), str(row["beats"]), row["wanted"], row["ran"], row["too_many"], row["longest_silence_s"])
            for name, row in rows.items()
        ],
    )
    own = rows["lockbeat"]
    judged = (
        f"By slot, of lockbeat: {own['slots']:,} came due, {own['once']:,} ran once, {own['twice']} twice; {own['in_ledger']} "
        f"did not run and stand in the ledger with their reason; of {own['unknown']} nothing is known. Peers have no slots that "
        "could be compared."
    )
    return "\n\n".join([note, counted, judged])


def signals(result: dict[str, Any]) -> str:
    rows = [(name, result["added"][name], result["ratios"][name]) for name in result["ratios"]]
    said = (
        f"Instructions, counted by callgrind: processor time varies by more than what is looked for. {result['jobs']:,} jobs "
        "that are due at once, in one instance that is watched and not watched by turns. A slot that is fired, run and ended "
        f"takes {cell(result['alone'])} of them when nobody watches."
    )
    return f"{said}\n\n{table(('watched by', 'more a slot', 'times as many'), rows)}"


def web(result: dict[str, Any]) -> str:
    said = (
        f"Over {result['jobs']:,} jobs and {result['tasks']:,} tasks that wait, each page {result['times']} times, after once to "
        "load the scripts. Commands: those inside of scripts, too. No page reads all keys: neither SCAN nor KEYS is called."
    )
    keys = ("p50_ms", "max_ms", "scripts", "commands", "server_ms", "kb")
    asked = table(
        ("page", "ms, p50", "max", "script calls", "commands", "server, ms", "kB"),
        [(f"`{path}`", *(row[key] for key in keys)) for path, row in result["pages"].items()],
    )
    browser = (
        f"In Chromium, `/jobs` over {result['jobs']:,} jobs opens in {number(result['browser_ms']['median'])} ms, "
        f"{number(result['browser_ms']['max'])} at most, with an empty cache."
    )
    return "\n\n".join([said, asked, browser])
