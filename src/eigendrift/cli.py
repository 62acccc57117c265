"""The command line: what is in a folder of a Tracker, its eigenpairs, and a report about it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eigendrift.loading import load


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Its words, by default those of the process.

    Returns:
        The exit status: 0, or 1 after one line that says what was wrong.
    """
    given = _parser().parse_args(argv)
    try:
        given.run(given)
    except (ValueError, ImportError, OSError) as error:
        print(f"eigendrift: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "eigendrift", description="Eigenvectors of the Hessian along a recorded training run."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="say what a folder holds")
    info.set_defaults(run=_info)
    solve = commands.add_parser(
        "solve", help="solve for the eigenpairs at the recorded snapshots; goes on where it stopped"
    )
    solve.add_argument(
        "--problem",
        required=True,
        metavar="FILE.py:FUNCTION",
        help="a function of no arguments that returns a HessianOperator of the model and its data",
    )
    solve.add_argument("-k", type=int, default=3, help="number of eigenpairs (3)")
    solve.add_argument("--tol", type=float, default=1e-3, help="relative residual norm (1e-3)")
    solve.add_argument("--which", choices=("LA", "SA", "LM"), default="LA", help="end of the spectrum (LA)")
    solve.set_defaults(run=_solve)
    report = commands.add_parser("report", help="write one self-contained HTML page about the solved snapshots")
    report.add_argument("--output", type=Path, help="the file (report.html in the folder)")
    report.add_argument("-k", type=int, help="number of eigenpairs, where there are several solutions")
    report.add_argument("--tol", type=float, help="their tolerance")
    report.add_argument("--which", choices=("LA", "SA", "LM"), help="their end of the spectrum")
    report.set_defaults(run=_report)
    for command in (info, solve, report):
        command.add_argument("folder", type=Path, help="the folder of a Tracker")
    return parser


def _info(given: argparse.Namespace) -> None:
    from eigendrift.tracking.track import Track, solutions
    from eigendrift.tracking.trajectory import Trajectory

    trajectory = Trajectory(given.folder)
    print(trajectory)
    for name, shape in trajectory.shapes.items():
        print(f"  {name}: {' x '.join(map(str, shape)) or 'one number'}")
    for key, value in trajectory.meta.items():
        print(f"  meta {key}: {value}")
    for part in ("gradients", "updates"):
        if part in trajectory.recorded:
            print(f"  {part}: at {int(trajectory.has(part).sum())} of {len(trajectory)} snapshots")
    for choice in solutions(given.folder):
        print(Track(given.folder, **choice))


def _solve(given: argparse.Namespace) -> None:
    from eigendrift.tracking.solve import solve

    print(solve(given.folder, load(given.problem), given.k, given.tol, which=given.which))


def _report(given: argparse.Namespace) -> None:
    from eigendrift.tracking.track import Track

    track = Track(given.folder, k=given.k, tol=given.tol, which=given.which)
    print(track.report(given.output or given.folder / "report.html"))


if __name__ == "__main__":
    sys.exit(main())
