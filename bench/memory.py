"""Resident memory of an idle Tower, beside the empty handler on the same stack.

The processes of `tower up` and what it started, a while after it became ready and answered a first call; what
they share is counted once (proportional set size), and their resident set sizes are reported as well.

    python -m bench memory
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.processes import server, tower

GOAL_MB = 120.0
IDLE_SECONDS = 3.0


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def megabytes(pid: int) -> dict[str, float]:
    """Resident and proportional set size of a process tree."""
    sums = {"Rss": 0.0, "Pss": 0.0}
    for each in tree(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += int(rest.split()[0]) / 1024
    return sums


def main() -> dict[str, Any]:
    """Measure the empty handler, then Tower."""
    with server([sys.executable, "-m", "bench.empty"], core=None) as (_, pid):
        time.sleep(IDLE_SECONDS)
        floor = megabytes(pid)
    with tower(core=None) as running:
        running.person("bench")
        time.sleep(IDLE_SECONDS)
        ours = megabytes(running.pid)
        processes = len(tree(running.pid))
    return {
        "bench": "memory",
        "unit": "megabytes",
        "ours": round(ours["Rss"], 1),
        "ours_proportional": round(ours["Pss"], 1),
        "processes": processes,
        "floor": round(floor["Rss"], 1),
        "ratio": round(ours["Rss"] / GOAL_MB, 3),
        "goal": 1.0,
        "goal_megabytes": GOAL_MB,
        "met": ours["Rss"] <= GOAL_MB,
        "says": f"{ours['Rss']:.0f} MB of {GOAL_MB:.0f} MB, {processes} process(es); "
        f"the empty handler {floor['Rss']:.0f} MB",
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
