"""What identity and policy cost: asking for a run until its first line of code runs, beside a Tower without.

Three Towers in one run: as shipped; with a permissive stub in place of authentication and decisions
(`permissive.py`); and that without audit records. Each has a caller of its own, warm, with one run at a time.
They take turns, each round in another order, so that other work on the machine meets all alike. The added
time is the difference of the 99th percentiles (the goal) and of the medians, and the median of the
differences within a round, which suffers least from other work. How much the 99th percentile differs
between the even and the odd rounds of one and the same Tower is told as `noise_p99_ms`: above the goal it
decides nothing, and then the median within a round has to meet the goal as well.

    python -m bench identity
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

from bench.processes import ROOT, Tower, cpu_seconds, stop, tower
from bench.starts import DOMAIN, PROJECT, TASKS

GOAL_MS = 1.0
ROUNDS = 2000  # with a few hundred the 99th percentile is noise
WARM = 20
PAUSE_SECONDS = 0.02  # what a Tower does after the end of a run is not to meet the next one's turn

STUB = [sys.executable, "-m", "bench.permissive"]
SIDES: dict[str, Sequence[str] | None] = {
    "shipped": None,
    "permissive": STUB,
    "unrecorded": [*STUB, "--unrecorded"],
}


class Caller:
    """A process that asks one Tower for runs."""

    def __init__(self, running: Tower, process: subprocess.Popen[str]) -> None:
        self._running = running
        self._process = process
        self.accepted: list[float] = []
        self.began: list[float] = []

    def ask(self) -> None:
        """One run."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write("\n")
        sink.flush()
        answer = source.readline()
        if not answer:
            raise RuntimeError("the caller failed")
        accepted, began = json.loads(answer)
        self.accepted.append(accepted)
        self.began.append(began)

    def cpu(self) -> float:
        """Seconds of the processor that this Tower has used, without the processes of its tasks."""
        return cpu_seconds(self._running.pid)


@contextmanager
def side(command: Sequence[str] | None) -> Iterator[Caller]:
    """A Tower with the task deployed, and who calls it."""
    with tower(core=None, command=command) as running, tempfile.TemporaryDirectory() as code:
        key = running.person("bench")
        (Path(code) / "tasks.py").write_text(TASKS)
        place = ("--project", PROJECT, "--domain", DOMAIN)
        running.run("flyte", *place, "deploy", "tasks.py", "env", key=key, cwd=Path(code))
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.starts", running.url, key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            yield Caller(running, process)
        finally:
            stop(process)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


def p99(times: Sequence[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(times, n=100, method="inclusive")[98]


def added(ours: Caller, other: Caller) -> dict[str, float]:
    """What `ours` takes longer, in milliseconds until the first line of code."""
    pairs = zip(ours.began, other.began, strict=True)
    return {
        "p99_ms": round(p99(ours.began) - p99(other.began), 3),
        "p50_ms": round(statistics.median(ours.began) - statistics.median(other.began), 3),
        "paired_ms": round(statistics.median(one - two for one, two in pairs), 3),
        "submit_p50_ms": round(statistics.median(ours.accepted) - statistics.median(other.accepted), 3),
    }


def main() -> dict[str, Any]:
    """Measure all three in turn."""
    with ExitStack() as closing:
        callers = {name: closing.enter_context(side(command)) for name, command in SIDES.items()}
        for caller in callers.values():
            for _ in range(WARM):
                caller.ask()
            caller.accepted.clear()
            caller.began.clear()
        orders = list(permutations(callers.values()))
        before = {name: caller.cpu() for name, caller in callers.items()}
        for number in range(ROUNDS):
            for caller in orders[number % len(orders)]:
                caller.ask()
                time.sleep(PAUSE_SECONDS)
        used = {name: (caller.cpu() - before[name]) / ROUNDS * 1000 for name, caller in callers.items()}
    shipped, stub, bare = callers["shipped"], callers["permissive"], callers["unrecorded"]
    cost, recorded = added(shipped, stub), added(stub, bare)
    noise = abs(p99(shipped.began[::2]) - p99(shipped.began[1::2]))
    sides = {
        name: {
            "p50_ms": round(statistics.median(caller.began), 2),
            "p99_ms": round(p99(caller.began), 2),
            "submit_p50_ms": round(statistics.median(caller.accepted), 2),
            "submit_p99_ms": round(p99(caller.accepted), 2),
            "cpu_ms": round(used[name], 2),
        }
        for name, caller in callers.items()
    }
    return {
        "bench": "identity",
        "unit": "milliseconds",
        **sides,
        "added": cost,
        "added_by_records": recorded,
        "noise_p99_ms": round(noise, 3),
        "rounds": ROUNDS,
        "ratio": round(cost["p99_ms"] / GOAL_MS, 3),
        "goal": 1.0,
        "goal_ms": GOAL_MS,
        "met": cost["p99_ms"] <= GOAL_MS and (noise <= GOAL_MS or cost["paired_ms"] <= GOAL_MS),
        "says": (
            f"adds {cost['p99_ms']:.2f} ms to the p99 (goal {GOAL_MS:.0f}; even and odd rounds differ by "
            f"{noise:.2f}), {cost['p50_ms']:.2f} to the p50, {cost['paired_ms']:.2f} within a round, "
            f"{used['shipped'] - used['permissive']:.2f} ms of CPU; records {recorded['paired_ms']:.2f}; "
            f"p50 {sides['shipped']['p50_ms']:.1f}, p99 {sides['shipped']['p99_ms']:.1f} ms as shipped"
        ),
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
