"""A database that refuses a writer who has been overtaken, with one more column and one more comparison:

    python examples/fenced_sqlite.py

A slow instance holds the lock, stalls for longer than its lease, and writes all the same: it can't know better. Its fence is
older than that of the instance which took over, so the database says no.
"""

import asyncio
import sqlite3

from lockbeat import Lease, Lockbeat

SCHEMA = "CREATE TABLE report (id TEXT PRIMARY KEY, body TEXT NOT NULL, fence INTEGER NOT NULL)"
INSERT = "INSERT INTO report (id, body, fence) VALUES ('daily', '', 0)"
UPDATE = "UPDATE report SET body = ?, fence = ? WHERE id = ? AND fence <= ?"


def write(database: sqlite3.Connection, body: str, lease: Lease) -> bool:
    """Write in the name of a lease. False: somebody has held the lock since, and has written."""
    with database:
        return database.execute(UPDATE, (body, lease.fence, "daily", lease.fence)).rowcount == 1


async def main() -> None:
    database = sqlite3.connect(":memory:")
    with database:
        database.execute(SCHEMA)
        database.execute(INSERT)
    async with Lockbeat() as lb:
        slow = await lb.locks.try_acquire("report", "slow", ttl=0.2)
        assert slow is not None
        print("slow writes:      ", write(database, "draft, by slow", slow))
        async with lb.lock("report", ttl=30) as fast:  # waits for the lease of the slow one to end
            print("fast writes:      ", write(database, "by fast", fast))
            print("slow writes again:", write(database, "final, by slow", slow))
            print("fast writes again:", write(database, "final, by fast", fast))
        print("slow holds it:    ", await lb.locks.owner("report") == "slow")
    print("in the database:  ", *database.execute("SELECT body FROM report").fetchone())
    database.close()


if __name__ == "__main__":
    asyncio.run(main())
