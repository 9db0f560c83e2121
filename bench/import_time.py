"""`import flyte` beside the official SDK's, in fresh processes, without the start of the interpreter.

Each SDK is imported by the interpreter of its own environment. The processes take turns and the medians
count; the byte code is compiled before the first measured round. Since both load parts of themselves on first
use, the same is measured again with the names that a file with a task needs (`used`).

    python -m bench import_time
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.middleware import OFFICIAL, ROOT, official_python

GOAL = 1 / 6
ROUNDS = 21

NOTHING = "pass"
IMPORT = "import flyte"
USE = "import flyte; flyte.TaskEnvironment, flyte.Image, flyte.Resources, flyte.run, flyte.init"


def milliseconds(python: Path | str, code: str) -> float:
    """The wall time of one process."""
    start = time.perf_counter()
    subprocess.run([python, "-c", code], check=True, cwd=ROOT / ".cache", env={"PATH": "/usr/bin:/bin"})
    return (time.perf_counter() - start) * 1000


def main() -> dict[str, Any]:
    """Measure both sides in turns."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    sides: dict[str, Path | str] = {"ours": sys.executable, "official": official_python()}
    cases = [(side, python, code) for side, python in sides.items() for code in (NOTHING, IMPORT, USE)]
    times: dict[tuple[str, str], list[float]] = {(side, code): [] for side, _, code in cases}
    for number in range(ROUNDS + 2):
        for side, python, code in cases:
            took = milliseconds(python, code)
            if number >= 2:
                times[side, code].append(took)
    middle = {case: statistics.median(taken) for case, taken in times.items()}
    start = {side: middle[side, NOTHING] for side in sides}
    ours, official = (middle[side, IMPORT] - start[side] for side in sides)
    ours_used, official_used = (middle[side, USE] - start[side] for side in sides)
    return {
        "bench": "import_time",
        "unit": "milliseconds",
        "ours": round(ours, 1),
        "official": round(official, 1),
        "ours_used": round(ours_used, 1),
        "official_used": round(official_used, 1),
        "interpreter": round(start["ours"], 1),
        "ratio": round(ours / official, 4),
        "goal": GOAL,
        "met": ours / official <= GOAL,
        "rounds": ROUNDS,
        "says": f"{ours:.1f} ms, official {OFFICIAL} {official:.0f} ms; "
        f"with the names in use {ours_used:.0f} ms and {official_used:.0f} ms",
    }
