"""Run the benchmarks: `python -m bench` all of them, `python -m bench NAME...` some.

A benchmark is a module of this package with `main() -> dict`: it holds at least `bench` (its name), `unit`,
`ratio` (against what was measured beside it), `goal` and `met`, and may hold a sentence `says`. Each prints
one line of JSON and one for people. The exit status is 1 when one could not be measured; a missed goal is
a result, not a failure.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

ORDER = (
    "import_time",
    "middleware",
    "memory",
    "tokens",
    "decisions",
    "create_run",
    "callers",
    "webhook",
    "workflow",
    "identity",
    "agent",
    "revocation",
)


def names() -> list[str]:
    """The benchmarks that there are, in the order they run."""
    here = Path(__file__).parent
    return [name for name in ORDER if (here / f"{name}.py").exists()]


def line(result: dict[str, Any]) -> str:
    """A result for people."""
    verdict = "met" if result["met"] else "MISSED"
    shown = {name: value for name, value in result.items() if isinstance(value, int | float)}
    for name in ("ratio", "goal", "met"):
        shown.pop(name, None)
    says = result.get("says") or ", ".join(f"{name} {value:g}" for name, value in shown.items())
    return f"{result['bench']:<12} ratio {result['ratio']:g}, goal {result['goal']:.4g}: {verdict} ({says})"


def main(wanted: list[str]) -> int:
    """Run them one after the other; the machine is theirs alone."""
    known = names()
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"There is no benchmark {unknown[0]!r}. There are: {', '.join(known)}.", file=sys.stderr)
        return 2
    status = 0
    for name in wanted or known:
        try:
            result = importlib.import_module(f"bench.{name}").main()
        except Exception as error:
            print(json.dumps({"bench": name, "error": f"{type(error).__name__}: {error}"}), flush=True)
            told = "\n".join([str(error), *getattr(error, "__notes__", ())])
            print(f"{name:<12} could not be measured: {told}", file=sys.stderr, flush=True)
            status = 1
        else:
            print(json.dumps(result), flush=True)
            print(line(result), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
