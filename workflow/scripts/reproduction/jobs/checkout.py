"""Where the two packages of this checkout lie, and how its processes come to import them, whatever is installed."""

import os
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2]
SOURCES = SCRIPTS.parents[1] / "src"
# Package -> its folder.
ROOTS = {"eigendrift": SOURCES / "eigendrift", "reproduction": SCRIPTS / "reproduction"}


def use_this_copy() -> None:
    """Import this checkout's packages, here and in the processes that are started from now on.

    Snakemake adds the folder of a script behind all others, where an installed copy would win over the checkout's own,
    and it does not know of `src`.
    """
    own = [str(SOURCES), str(SCRIPTS)]
    sys.path[:] = [*own, *(folder for folder in sys.path if folder not in own)]
    others = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder and folder not in own]
    os.environ["PYTHONPATH"] = os.pathsep.join([*own, *others])
