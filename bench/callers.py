"""CreateRun by 10,000 callers beside the same by one: what it costs that everybody is somebody else.

Machine, requests and connections are those of `create_run`; only the keys differ. With many callers each
request carries the next of 10,000 keys of 10,000 people, so that none finds the facts of the call before it.
The two take turns, a few seconds each, on one server.

    python -m bench callers
"""

from __future__ import annotations

import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

from bench import create_run
from bench.processes import SERVER_CORE, load, tower
from tower.clock import SystemClock
from tower.identity import keys
from tower.store import schema
from tower.store.database import Database

GOAL = 0.85
PEOPLE = 10_000
ROUNDS = 5
SECONDS = 2.0


def furnish(home: Path) -> list[str]:
    """People with a role and a key each, in the database before the server starts; the keys."""
    made = [keys.generate() for _ in range(PEOPLE)]

    def write(tx: Any) -> None:
        now = tx.now
        for number, key in enumerate(made):
            name = f"caller{number}"
            by = {"created_at": now, "created_by": "machine"}
            tx.insert(schema.users, subject=name, kind="user", name=name, email="", **by)
            place = {"project": create_run.PROJECT, "domain": "*"}
            tx.insert(schema.bindings, subject=name, role="contributor", **place, **by)
            digest = keys.digest(key.secret)
            tx.insert(schema.api_keys, id=key.id, name=f"{name}-key", subject=name, hash=digest, **by)

    async def fill() -> None:
        async with Database.open(home / "tower.db", clock=SystemClock()) as db:
            await db.write(write)

    asyncio.run(fill())
    return [key.text for key in made]


def main() -> dict[str, Any]:
    """Measure both in turn."""
    texts: list[str] = []
    common: dict[str, Any] = {
        "headers": create_run.HEADERS,
        "body": create_run.request(),
        "connections": create_run.CONNECTIONS,
        "seconds": SECONDS,
    }
    one, many = [], []
    with tower(core=SERVER_CORE, furnish=lambda home: texts.extend(furnish(home))) as running:
        create_run.prepare(running)
        warm = {**common, "seconds": 12.0}  # everybody has called once
        load(running.url, create_run.PATH, **warm, keys=texts, turns=True)
        for number in range(ROUNDS):
            # a person may have so many runs waiting: each round has another one
            one.append(create_run.drive(running.url, running.pid, **common, keys=[texts[number]]))
            many.append(create_run.drive(running.url, running.pid, **common, keys=texts, turns=True))
    single = statistics.median(each["per_second"] for each in one)
    several = statistics.median(each["per_second"] for each in many)
    return {
        "bench": "callers",
        "unit": "requests per second",
        "callers": PEOPLE,
        "ours": several,
        "one_caller": single,
        "cpu_us": statistics.median(each["cpu_us"] for each in many),
        "one_cpu_us": statistics.median(each["cpu_us"] for each in one),
        "p99_ms": statistics.median(each["p99_ms"] for each in many),
        "one_p99_ms": statistics.median(each["p99_ms"] for each in one),
        "ratio": round(several / single, 3),
        "goal": GOAL,
        "met": several / single >= GOAL,
        "says": f"{several:.0f} durable runs/s by {PEOPLE} callers in turn, {single:.0f}/s by one",
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
