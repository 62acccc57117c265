"""python -m eigendrift: the command line."""

import sys

from eigendrift.cli import main

sys.exit(main())
