"""All parts in turn, each in a process of its own (a quick run stays in one): python -m benchmarks.run [--quick].

The comparison of the solvers comes last and takes the remaining time; no part of it is started that would end
after `--minutes`.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from benchmarks import machine
from benchmarks.results import arguments, passed_on

PARTS = (
    "snapshots",
    "product",
    "training",
    "tracking",
    "memory",
    "general",
    "scaling",
    "dense",
    "clusters",
    "solvers",
    "plots",
    "report",
)
# What the parts after the comparison take, and the tight solve that its last snapshot may still need.
RESERVE = 30.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts, leave the machine's facts, and fail at the end if a part failed."""
    minutes = {"type": float, "default": 19.5, "help": "time for everything"}
    chosen = {"nargs": "+", "choices": PARTS, "default": list(PARTS), "help": "these parts alone"}
    given = arguments(__doc__, argv, minutes=minutes, parts=chosen)
    started = time.monotonic()
    facts = machine.facts(given.threads)
    seconds: dict[str, float] = {}
    failed = []
    for part in given.parts:
        left = 60 * given.minutes - (time.monotonic() - started) - RESERVE
        options = [*passed_on(given), "--threads", str(given.threads)]
        if part == "solvers":
            options += ["--seconds", f"{left:.0f}"]
        print(f"== {part}", flush=True)
        begun = time.monotonic()
        if given.quick:
            import_module(f"benchmarks.{part}").main(options)
        elif subprocess.run([sys.executable, "-m", f"benchmarks.{part}", *options], check=False).returncode:
            failed.append(part)
        seconds[part] = round(time.monotonic() - begun, 1)
        facts["seconds"], facts["total_minutes"] = seconds, round((time.monotonic() - started) / 60, 1)
        machine.write(given.output / "machine.json", facts)
    print("seconds:", seconds, flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
