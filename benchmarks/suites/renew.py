"""Renewing 10,000 leases: lockbeat's keeper in one round, redis-py's Lock.extend by 64 callers."""

from __future__ import annotations

from typing import Any

from harness import Bench, Child, scripts_seen, server, spread

LEASES = 10_000
TTL = 6.0


def run(bench: Bench) -> dict[str, Any]:
    rounds = bench.pick(7, 2)
    found: dict[str, Any] = {}
    for name in ("redis-py", "lockbeat"):
        bench.log(f"renew: {name}")
        with server() as it, Child("renew", contender=name, url=it.url) as child:
            child.answer()
            # redis-py's rounds take longer than a short ttl.
            answer = child.ask("hold", leases=LEASES, ttl=TTL if name == "lockbeat" else 60.0, rounds=rounds)
            found[name] = {"round_ms": spread([1000 * value for value in answer.pop("rounds_s")]), **answer}
            if name == "lockbeat":
                scripts = scripts_seen(it)
    return {"rows": found, "leases": LEASES, "scripts": scripts}
