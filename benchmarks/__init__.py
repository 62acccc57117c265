"""How fast eigendrift is against other libraries and against the machine's limit: python -m benchmarks.run."""

import os
import sys
from pathlib import Path

# The reproduction is part of no wheel: these packages are imported from where they lie, by processes of ours too.
_OWN = [str(Path(__file__).parents[1] / folder) for folder in ("src", "workflow/scripts")]
sys.path[:0] = _OWN
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*_OWN, os.environ.get("PYTHONPATH")]))
